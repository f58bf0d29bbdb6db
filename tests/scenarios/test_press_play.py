"""A viewer presses play: real players in a real browser, signed URLs, and whatever goes away in mid-film.

The page stands for an operator's front end: it brings its viewer's JWT to steering and plays from where that says, with
hls.js and dash.js. Page, steering and two appliances are different origins of one site; the appliances let in only who
brings a token, and each token is bound to the viewer's network.
"""

import contextlib
import http.client
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import urlsplit

import msgspec
import pytest

from admin.demo.login import write_signing_key
from admin.demo.smoke import find_browser
from admin.errors import MachineError
from admin.publish.keys import Keys, Scheme, TrackKey
from admin.publish.renditions import Packaging
from tests.doubles.appliance import PATIENCE, Got, wait_until
from tests.doubles.film import drawn, published, put_all
from tests.doubles.origin import Origin
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry
from tests.doubles.viewer import screen, serve_page
from tests.doubles.viewers import AUDIENCE, ISSUER, LoginService
from wire.access import split_path
from wire.codec import decode
from wire.playback import Playback
from wire.token import Claims, mint, signing_key

# The first test waits until the whole house is there.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

LOGIN = LoginService()
SITE = "films.example"
STEERING, PAGE = f"steer.{SITE}", f"watch.{SITE}"
BOXES = ("near", "far")
SECONDS = 16
KEYS = {
    scheme: Keys(*(TrackKey(scheme, secrets.token_bytes(16), secrets.token_bytes(16)) for _ in ("video", "audio")))
    for scheme in Scheme
}
TITLES = {
    "clear": {},
    "cenc": {"keys": KEYS[Scheme.CENC], "packaging": Packaging.SINGLE_FILE},
    "cbcs": {"keys": KEYS[Scheme.CBCS]},
    "ranges": {"packaging": Packaging.SINGLE_FILE},
}
"""Of each title how it is published, besides the usual."""
PLAYERS = {"hls": 6, "dash": 8}
"""And how many seconds ahead they fetch: each has two segments at once then, and leaves something for later."""
VIEWER, THIEF = "127.0.0.1", "127.0.1.9"
"""Addresses in two networks: a token is bound to the viewer's /24."""


class House:
    """All of it, in order."""

    def __init__(self, origin, replica, boxes, key, screen):
        self.origin = origin
        self.replica = replica
        self.boxes = boxes
        self._key = key
        self._screen = screen

    def pressing_play(self, player, title, **more):
        """The film, from where steering sends this viewer now."""
        steering = f"http://{STEERING}:{self.replica.public_port}"
        more = {"ahead": PLAYERS[player], **more}
        return self._screen.pressing_play(player, steering, title, LOGIN.token(), **more)

    def playback(self, title):
        """What steering says to who presses play."""
        got = self.replica.public(f"/v1/playback?title={title}", Authorization=f"Bearer {LOGIN.token()}")
        assert got.status == 200, got.body
        return decode(got.body, Playback)

    def places(self, title):
        """Those that are signed: the last resort, the origin, is not."""
        return [place for place in self.playback(title).places if place.id in self.boxes]

    def pressed_long_ago(self, title, seconds):
        """What steering said to a viewer whose URLs are good for so many seconds from now: the page was asleep."""

        def aged(url):
            token = split_path(urlsplit(url).path.encode())[0]
            claims = msgspec.json.decode(urlsafe_b64decode(token.split(b".")[1] + b"=="), type=Claims)
            older = msgspec.structs.replace(claims, exp=time.time() + seconds)
            return url.replace(token.decode(), mint(older, self._key))

        places = [
            {"id": place.id, "base_url": aged(place.base_url), "hls": aged(place.hls), "dash": aged(place.dash)}
            for place in self.places(title)
        ]
        return {"playback": json.dumps({**msgspec.to_builtins(self.playback(title)), "places": places})}

    def segments(self, title):
        """Files of segments, or of all segments together."""
        ends = (".m4s", "/track.mp4")
        return {path for path in self.origin.paths() if path.startswith(f"/titles/{title}/") and path.endswith(ends)}

    def hold(self, title):
        """Have both appliances hold all of a title."""
        paths = [path for path in self.origin.paths() if path.startswith(f"/titles/{title}/")]
        for place in self.places(title):
            box = self.boxes[place.id]
            for path in paths:
                assert box.get(urlsplit(place.base_url).path + path.removeprefix(f"/titles/{title}/")).status == 200
            for path in paths:
                box.wait_stored(path)

    def put_in_order(self):
        if self.replica.process is None:
            self.replica.start()
        self.replica.change({"type": "set-wish", "appliance": "near", "wish": "serve"})
        for box in self.boxes.values():
            if box.process is None:
                box.launch()
                box.wait_ready()
        wait_until(lambda: all(self.is_heard_serving(name) for name in BOXES), "steering has heard that both serve")

    def is_heard_serving(self, name):
        """Whether steering says so of the appliance's present life, and not of one before, or from what it saved."""
        shown = self.replica.admin("GET", f"/v1/fleet/{name}").json()
        heard = shown["heartbeat"]
        return (
            heard and heard["boot"] == self.boxes[name].status()["steering"]["boot"] and shown["standing"] == "serving"
        )


def declared(boxes):
    return {
        "operator": [{"id": "isp"}, {"id": "ix"}],
        "site": [
            site("lis", "isp", 38.7, -9.1, "PT", prefixes=["127.0.0.0/8"]),
            site("mad", "ix", 40.4, -3.7, "ES", serves="everyone"),
        ],
        "appliance": [
            entry("near", "lis", url=f"http://near.{SITE}:{boxes['near'].port}"),
            entry("far", "mad", url=f"http://far.{SITE}:{boxes['far'].port}"),
        ],
    }


def licence():
    """What a licence server says to everybody here: all keys (Encrypted Media Extensions, 9.1.4)."""

    def spelled(value):
        return urlsafe_b64encode(value).rstrip(b"=").decode()

    pairs = [key for keys in KEYS.values() for key in (keys.video, keys.audio)]
    known = [{"kty": "oct", "kid": spelled(each.kid), "k": spelled(each.key)} for each in pairs]
    return json.dumps({"keys": known, "type": "temporary"}).encode()


@pytest.fixture(scope="module")
def house(module_appliance, tmp_path_factory):
    try:
        find_browser()
    except MachineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("house")
    (folder / "keys").mkdir()
    write_signing_key(folder / "keys" / "one.pem")
    token = folder / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    with contextlib.ExitStack() as stack:
        hold = stack.enter_context
        origin, front = hold(Origin()), hold(Origin())
        serve_page(front)
        front.put("/licence", licence(), content_type="application/json")
        put_all(origin, published(folder, drawn(folder / "film.mp4", SECONDS), TITLES))
        origin.put("/jwks.json", LOGIN.key_set())
        boxes = {name: module_appliance(origin.url, name=name) for name in BOXES}
        replica = Replica(folder / "steering", declared(boxes))
        stack.callback(replica.kill)
        for box in boxes.values():
            box.launch(
                steering={
                    "urls": [f"http://127.0.0.1:{replica.fleet_port}"],
                    "token_file": str(token),
                    "interval": "1 s",
                    "interfaces": ["lo"],
                    "link_speed": "1000 Gbit/s",
                },
                access={"required": True, "issuers": ["steer"], "clock_skew": 0},
                cors={"allow_origins": [f"http://{PAGE}:{front.port}"]},
            )
        replica.start(
            listen={"base_url": f"http://{STEERING}:{replica.public_port}"},
            answers={"ttl": 1, "steering_ttl": 1, "jitter": 0},
            content={"catalogue": origin.url},
            # On a busy machine a heartbeat may come late; who is killed is left by players, not by steering.
            patience={"rise": 1, "ramp": 1, "interval": 1, "quiet_after": 13, "silent_after": 14},
            playback={"keys": f"{origin.url}/jwks.json", "issuer": ISSUER, "audience": AUDIENCE, "burst": 1000},
            tokens={
                "folder": str(folder / "keys"),
                "issuer": "steer",
                "publish_ahead": "0 s",
                "renew": "60 s",
                "bind_network": True,
            },
        )
        for box in boxes.values():
            box.wait_ready()
        hosts = dict.fromkeys((STEERING, PAGE, *(f"{name}.{SITE}" for name in BOXES)), VIEWER)
        shown = hold(screen(None, f"http://{PAGE}:{front.port}/", hosts))
        key = signing_key((folder / "keys" / "one.pem").read_bytes(), "one")
        yield House(origin, replica, boxes, key, shown)


@pytest.fixture(autouse=True)
def in_order(house):
    house.put_in_order()


@pytest.fixture(params=TITLES)
def title(request):
    return request.param


def of_appliances(viewing):
    """What was asked of appliances."""
    return [one for one in viewing.requests if one.host in {f"{name}.{SITE}" for name in BOXES}]


def is_encrypted(house, title):
    """Whether all that moves and sounds is, by what stands in the files."""
    inits = [path for path in house.origin.paths() if path.startswith(f"/titles/{title}/") and path.endswith(".mp4")]
    assert len(inits) >= 2
    told = {b"sinf" in house.origin.content(path) for path in inits}
    assert len(told) == 1
    return told.pop()


@pytest.mark.parametrize("player", PLAYERS)
def test_a_title_plays_to_its_end_and_everything_is_asked_by_signed_urls(house, title, player):
    with house.pressing_play(player, title, ahead=SECONDS) as viewing:
        viewing.wait_over()
        asked = of_appliances(viewing)
    assert {one.path for one in asked} >= house.segments(title)
    assert {one.status for one in asked} <= {200, 206}
    assert all(one.token for one in asked)
    assert is_encrypted(house, title) == (title in KEYS)
    assert {house.boxes["near"].get(path).status for path in house.segments(title)} == {401}


@contextlib.contextmanager
def in_mid_film(house, *players):
    """Viewers who see the first segment and have the second, all from near, and have not yet asked for more."""
    with contextlib.ExitStack() as stack:
        viewings = [stack.enter_context(house.pressing_play(player, "clear")) for player in players]
        for viewing in viewings:
            viewing.wait("viewing.segments.length >= 4")
            assert viewing.hosts() == {f"near.{SITE}"}
        yield viewings


def assert_seen_to_the_end(*viewings):
    """By all of them, and without a stall."""
    for viewing in viewings:
        viewing.wait_whole()
    for viewing in viewings:
        stalls, least = viewing.felt()
        assert (stalls, least > 0) == (0, True), f"{stalls} stalls, {least} s in the buffer; {viewing}"
        viewing.hurry()
    for viewing in viewings:
        viewing.wait_over()


def test_films_go_on_without_a_stall_when_their_appliance_is_killed(house):
    with in_mid_film(house, *PLAYERS) as viewings:
        house.boxes["near"].kill_all()
        assert_seen_to_the_end(*viewings)
        for viewing in viewings:
            assert viewing.moves[0][:2] == ("near", "far")
            assert f"far.{SITE}" in viewing.hosts()
            asked = of_appliances(viewing)
            assert {one.path for one in asked if one.status == 200} >= house.segments("clear")
            assert all(one.token for one in asked)


def test_a_drained_appliance_is_left_at_the_next_answer_of_steering(house):
    with in_mid_film(house, *PLAYERS) as viewings:
        house.replica.change({"type": "set-wish", "appliance": "near", "wish": "drain"})
        drained_at = time.time()
        for viewing in viewings:
            viewing.wait("viewing.moves.length > 0")
            left_at = viewing.left_at
            asked = [one.at for one in viewing.requests if one.path == "/v1/content-steering"]
            assert len([at for at in asked if drained_at < at < left_at]) <= 1, "one TTL is one question"
        assert_seen_to_the_end(*viewings)
        for viewing in viewings:
            assert viewing.moves == [("near", "far", "steering")]
            assert {one.host for one in of_appliances(viewing) if one.at > viewing.left_at} == {f"far.{SITE}"}


def test_titles_that_an_appliance_holds_go_on_when_the_origin_dies(house):
    house.hold("clear")
    with in_mid_film(house, *PLAYERS) as viewings:
        house.origin.drop_connections()
        try:
            assert_seen_to_the_end(*viewings)
        finally:
            house.origin.come_back()
        for viewing in viewings:
            assert viewing.hosts() == {f"near.{SITE}"}


def test_playing_films_go_on_when_steering_dies(house):
    with in_mid_film(house, *PLAYERS) as viewings:
        house.replica.kill()
        died_at = time.time()
        for viewing in viewings:
            viewing.wait("viewing.allRequests().some(({ at, status }) => at > it && status === 0)", died_at)
        assert_seen_to_the_end(*viewings)
        for viewing in viewings:
            assert viewing.moves == []


@contextlib.contextmanager
def with_brief_urls(house, lives, **more):
    """Viewers whose URLs are good for so many seconds from now, and the moment when they are over."""
    given = house.pressed_long_ago("clear", lives)
    over_at = time.time() + lives
    with contextlib.ExitStack() as stack:
        viewings = [
            stack.enter_context(house.pressing_play(player, "clear", **{**given, "ahead": 1, **more}))
            for player in PLAYERS
        ]
        for viewing in viewings:
            viewing.pause()
        wait_until(lambda: time.time() > over_at, "the URLs are over")
        for viewing in viewings:
            viewing.go_on()
        yield viewings, over_at


def test_a_page_presses_play_again_when_a_token_ends_in_mid_film(house):
    with with_brief_urls(house, 2) as (viewings, over_at):
        assert_seen_to_the_end(*viewings)
        for viewing in viewings:
            asked = of_appliances(viewing)
            first = asked[0].token
            assert {one.status for one in asked if one.token == first and one.at > over_at} == {401}
            assert {one.status for one in asked if one.token != first} == {200}
            assert viewing.presses == 1


def test_a_cookie_renews_a_token_that_ends_in_mid_film(house):
    """Where the page sends cookies along: appliances and page are of one site, and the appliances name the page."""
    # A busy machine may need longer than the first until the page has begun.
    assert any(is_renewed_by_cookies(house, lives) for lives in (4, 30))


def is_renewed_by_cookies(house, lives):
    """Whether nobody had to press play again for films whose URLs are good for so many seconds."""
    with with_brief_urls(house, lives, cookies=1) as (viewings, over_at):
        assert_seen_to_the_end(*viewings)
        for viewing in viewings:
            asked = of_appliances(viewing)
            assert [one for one in asked if one.at > over_at and one.status == 200]
            assert {one.status for one in asked} == {200} or viewing.presses
        return not any(viewing.presses for viewing in viewings)


def test_a_stolen_url_is_refused_in_another_network_while_its_viewer_goes_on(house):
    with in_mid_film(house, "hls") as (viewing,):
        url = next(one.url for one in of_appliances(viewing) if one.path.endswith(".m4s"))
        before = house.boxes["near"].metric("oca_access_refusals_total", reason="network")
        stolen = fetched(url, THIEF)
        assert stolen.status == 403
        assert stolen.body.startswith(b"network: ")
        assert house.boxes["near"].metric("oca_access_refusals_total", reason="network") == before + 1
        assert fetched(url, VIEWER).status == 200
        assert_seen_to_the_end(viewing)
        assert {one.status for one in of_appliances(viewing)} <= {200, 206}


def fetched(url, source):
    """A whole answer to a client at this address."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(VIEWER, parts.port, timeout=PATIENCE, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request("GET", parts.path, headers={"Host": parts.netloc})
        answer = connection.getresponse()
        return Got(answer.status, answer.headers, answer.read())
