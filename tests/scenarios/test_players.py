"""Real players in a real browser, on a small Internet: what a viewer sees of it when an appliance goes.

A viewer's network has two ways to films: an appliance in Lisbon, whose BIRD is told of that network by the ISP's
router, and one in Madrid, which is there for everyone. Each stands behind a router of its own, and steering, origin and
the page stand in the middle; all of them are machines of their own (network namespaces). What BIRD learns goes through
the kernel's table, the appliance's report and steering's rules to the player's next segment.
"""

import contextlib
import signal
import time

import pytest

from admin.demo.smoke import find_browser
from admin.errors import MachineError
from tests.doubles.appliance import wait_until
from tests.doubles.audience import Audience
from tests.doubles.film import SEGMENT_SECONDS, drawn, published, put_all
from tests.doubles.networks import announcer, bird, connect, learner, machine
from tests.doubles.origin import Origin
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry
from tests.doubles.viewer import screen, serve_page

# The first test waits until the whole Internet is there.
pytestmark = [pytest.mark.networks, pytest.mark.browser, pytest.mark.timeout(300)]

VIEWERS = "198.51.100.0/24"
VIEWER, GATEWAY = "198.51.100.10", "198.51.100.1"
CENTRE = "10.9.0.1"
BOXES = {"near": "10.1.1.2", "far": "10.1.2.2"}
NAMES = {"near": "near.edge.example", "far": "far.edge.example"}
TABLE = 1000
TITLE = "big-film"
MASTER, MPD = f"/titles/{TITLE}/master.m3u8", f"/titles/{TITLE}/manifest.mpd"
DECLARED = f"/titles/{TITLE}/declared.mpd"
PLAYING = {"hls": MASTER, "dash": MPD, "shaka": DECLARED}
HOME = (VIEWERS, {"near": "prefix", "far": "anywhere"})


class Site:
    """An appliance behind the router of its provider, who announces prefixes to its BIRD."""

    def __init__(self, name, box, speaker, appliance):
        self.name = name
        self.box = box
        self.speaker = speaker
        self.appliance = appliance
        self._number = BOXES[name].split(".")[2]

    def announce(self, *prefixes):
        self.speaker.configure(announcing(self._number, *prefixes))

    def launch(self, **settings):
        with self.box.entered():
            self.appliance.launch(**settings)

    def wait_ready(self):
        with self.box.entered():
            self.appliance.wait_ready()


def announcing(number, *prefixes):
    return announcer(prefixes, f"10.1.{number}.2", 64500, 64999, f"2001:db8:{number}::1")


class Internet:
    """All of it, in order."""

    def __init__(self, replica, sites, screen, origin):
        self.replica = replica
        self.near = sites["near"]
        self.far = sites["far"]
        self.sites = sites
        self.origin = origin
        self._screen = screen

    def watching(self, player):
        """The film, from where steering sends this viewer now."""
        return self._screen.watching(
            player, f"http://steer.example:{self.replica.public_port}/redirect{PLAYING[player]}"
        )

    def placed(self):
        """Where steering finds the viewer: the announced prefix, and who is ranked, by which kind of nearness."""
        told = self.replica.explain(MASTER, VIEWER)
        return told["client"].get("network"), {row["appliance"]: row["proximity"] for row in told["ranked"]}

    def allow_near(self, capacity):
        """What the inventory says that the near appliance may send."""
        near = self.replica.fleet["appliance"][0]
        assert near["id"] == "near"
        near["capacity"] = capacity
        self.replica.write_inventory()
        self.replica.process.send_signal(signal.SIGHUP)

    def put_in_order(self):
        for one in self.sites.values():
            if one.appliance.process is None:
                one.launch()
                one.wait_ready()
            self.replica.change({"type": "set-wish", "appliance": one.name, "wish": "serve"})
        self.allow_near("10 Gbit/s")
        self.near.announce(VIEWERS)
        self.far.announce()
        wait_until(lambda: self.placed() == HOME, "both serve, and BGP says who is near")


@pytest.fixture(scope="module")
def internet(module_appliance, tmp_path_factory):
    try:
        find_browser()
    except MachineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("internet")
    with contextlib.ExitStack() as stack:
        hold = stack.enter_context
        centre, home = hold(machine()), hold(machine())
        connect(centre, home, [f"{GATEWAY}/24"], [f"{VIEWER}/24"])
        centre.forward()
        centre.run("ip", "address", "add", f"{CENTRE}/32", "dev", "lo")
        home.route("default", GATEWAY)
        # What steering and origin listen on as on loopback is the middle's own.
        hold(centre.entered())
        origin = hold(Origin(CENTRE, 80))
        replica = Replica(folder / "steering", declared())
        stack.callback(replica.kill)
        # The second as if steering's DNS had answered so.
        steered = {
            "steering_url": f"http://steer.example:{replica.public_port}",
            "films_url": f"http://{NAMES['near']}",
        }
        put_all(origin, published(folder, drawn(folder / "film.mp4", 60), {TITLE: steered}))
        origin.put(DECLARED, all_declared(origin.content(MPD)), content_type="application/dash+xml")
        serve_page(origin)
        replica.start(
            listen={
                "base_url": f"http://steer.example:{replica.public_port}",
                "public": f"0.0.0.0:{replica.public_port}",
                "fleet": f"0.0.0.0:{replica.fleet_port}",
            },
            answers={"steering_ttl": "2 s", "jitter": 0},
            content={"origin": "http://origin.example", "catalogue": origin.url},
            patience={"rise": 2, "interval": 1, "quiet_after": 4, "silent_after": 6, "panic_least": 3},
        )
        token = folder / "token"
        token.write_text(SECRET)
        token.chmod(0o600)
        sites = {}
        for number, (name, address) in enumerate(BOXES.items(), start=1):
            router, box = hold(machine()), hold(machine())
            connect(centre, router, [f"10.0.{number}.1/30"], [f"10.0.{number}.2/30"])
            connect(
                *(router, box, [f"10.1.{number}.1/30", f"2001:db8:{number}::1/64"]),
                [f"{address}/30", f"2001:db8:{number}::2/64"],
            )
            router.forward()
            router.route("default", f"10.0.{number}.1")
            box.route("default", f"10.1.{number}.1")
            centre.route(f"10.1.{number}.0/30", f"10.0.{number}.2")
            speaker = hold(bird(router, folder / name / "isp", announcing(number)))
            hold(bird(box, folder / name / "box", learner(TABLE, f"10.1.{number}.1", 64999, 64500)))
            sites[name] = Site(name, box, speaker, module_appliance(origin.url, name=name))
            sites[name].launch(
                listen={"http": "0.0.0.0:80"},
                routes={"kernel_table": TABLE, "poll": "1 s"},
                steering={
                    "urls": [f"http://{CENTRE}:{replica.fleet_port}"],
                    "token_file": str(token),
                    "interval": "1 s",
                    "interfaces": ["cable0"],
                    "link_speed": "10 Gbit/s",
                },
            )
        for one in sites.values():
            one.wait_ready()
        hosts = {NAMES[name]: address for name, address in BOXES.items()}
        hosts |= dict.fromkeys(("steer.example", "origin.example", "watch.example"), CENTRE)
        yield Internet(replica, sites, hold(screen(home, "http://watch.example/", hosts)), origin)


def all_declared(manifest):
    """The MPD with a place for each appliance. Shaka's builds know no clones: they rename the words of these."""
    old = f'<BaseURL serviceLocation=".">http://{NAMES["near"]}/titles/{TITLE}/</BaseURL>'
    new = "".join(old.replace('"."', f'"{name}"').replace(NAMES["near"], host) for name, host in NAMES.items())
    text = manifest.decode()
    assert old in text
    return text.replace(old, new).replace('defaultServiceLocation="."', 'defaultServiceLocation="near"').encode()


def declared():
    return {
        "operator": [{"id": "isp", "allowed": [VIEWERS]}, {"id": "ix", "allowed": [VIEWERS]}],
        "site": [
            site("lis", "isp", 38.7, -9.1, "PT", serves="announced"),
            site("mad", "ix", 40.4, -3.7, "ES", serves="everyone"),
        ],
        "appliance": [entry("near", "lis"), entry("far", "mad")],
    }


@pytest.fixture(autouse=True)
def in_order(internet):
    internet.put_in_order()


@contextlib.contextmanager
def watched(internet, player):
    """A film that plays from near, and has some of it left to fetch."""
    with internet.watching(player) as viewing:
        viewing.wait("viewing.segments.length > 2")
        assert viewing.hosts() == {NAMES["near"]}
        yield viewing


def wait_moved(viewing):
    """Until it fetches from afar, and then until all that came from near lies behind it."""
    viewing.wait("viewing.segments.some((each) => each.host === it)", NAMES["far"])
    last = max(segment.number for segment in viewing.segments if segment.host == NAMES["near"])
    viewing.hurry()
    viewing.wait_past(last * SEGMENT_SECONDS + 1)
    assert viewing.hosts() == set(NAMES.values())


@contextlib.contextmanager
def others_watch(internet):
    """Load for the near appliance, from where the far one stands."""
    origin = internet.origin
    films = {path: origin.content(path) for path in origin.paths() if path.endswith(".m4s")}
    with contextlib.ExitStack() as stack:
        # A thread stays on the machine where it began.
        with internet.far.box.entered():
            others = stack.enter_context(Audience(80, films, viewers=20, host=BOXES["near"]))
        yield others


@pytest.mark.parametrize("player", PLAYING)
def test_a_playing_film_leaves_a_drained_appliance_within_one_ttl_of_steering(internet, player):
    with watched(internet, player) as viewing:
        internet.replica.change({"type": "set-wish", "appliance": "near", "wish": "drain"})
        drained_at = time.time()
        wait_moved(viewing)
        # A player asks once in a TTL. At the first answer after the drain it goes, and asks nothing of near any more.
        answer = next(answer for answer in viewing.answers if answer.asked_at > drained_at)
        assert answer.first == "far"
        late = [segment for segment in viewing.segments if segment.host == NAMES["near"] and segment.at > answer.at]
        assert late == []


@pytest.mark.parametrize("player", PLAYING)
def test_a_film_goes_on_when_its_appliance_is_killed_under_load(internet, player):
    with watched(internet, player) as viewing, others_watch(internet) as others:
        others.wait_answers(200)
        internet.near.appliance.kill_all()
        wait_moved(viewing)
    wait_until(lambda: internet.replica.standing("near") == "lost", "steering knows too")
    assert others.cuts, "they were served until then"
    assert not others.faults


def test_a_playing_film_moves_when_its_appliance_has_more_to_do_than_it_may(internet):
    with watched(internet, "hls") as viewing, others_watch(internet) as others:
        internet.allow_near("20 Mbit/s")
        wait_until(lambda: internet.placed() == (VIEWERS, {"far": "anywhere"}), "near has no room, and is near still")
        wait_moved(viewing)
        others.assert_content()


def test_a_player_follows_a_route_that_is_withdrawn_here_and_announced_there(internet):
    with watched(internet, "hls") as viewing:
        internet.near.announce()
        wait_until(lambda: internet.placed() == (None, {"far": "anywhere"}), "the route is gone")
        wait_moved(viewing)
        internet.far.announce(VIEWERS)
        wait_until(lambda: internet.placed() == (VIEWERS, {"far": "prefix"}), "the other provider has it")
