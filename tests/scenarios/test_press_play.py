"""A viewer presses play: real players in a real browser, signed URLs, and whatever goes away in mid-film.

The page stands for an operator's front end: it brings its viewer's JWT to steering and plays from where that says, with
hls.js and dash.js. Page, steering and two appliances are different origins of one site; the appliances let in only who
brings a token, and each token is bound to the viewer's network.
"""

import contextlib
import http.client
import json
import time
from base64 import urlsafe_b64decode
from urllib.parse import urlsplit

import msgspec
import pytest

from admin.demo.login import write_signing_key
from admin.demo.smoke import find_browser
from admin.errors import MachineError
from tests.doubles.appliance import PATIENCE, Got, exchange, wait_until
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
TITLES = {"clear": {}}
"""Of each kind of title how it is published, besides the usual."""
PLAYERS = ("hls", "dash")
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
        return self._screen.pressing_play(player, steering, title, LOGIN.token(), **more)

    def playback(self, title):
        """What steering says to who presses play."""
        got = self.replica.public(f"/v1/playback?title={title}", Authorization=f"Bearer {LOGIN.token()}")
        assert got.status == 200, got.body
        return decode(got.body, Playback)

    def pressed_long_ago(self, title, seconds):
        """What steering said to a viewer whose URLs are good for so many seconds from now: the page was asleep."""

        def aged(url):
            token = split_path(urlsplit(url).path.encode())[0]
            claims = msgspec.json.decode(urlsafe_b64decode(token.split(b".")[1] + b"=="), type=Claims)
            older = msgspec.structs.replace(claims, exp=time.time() + seconds)
            return url.replace(token.decode(), mint(older, self._key))

        said = self.playback(title)
        places = [
            {"id": place.id, "base_url": aged(place.base_url), "hls": aged(place.hls), "dash": aged(place.dash)}
            for place in said.places
        ]
        return {"playback": json.dumps({**msgspec.to_builtins(said), "places": places})}

    def segments(self, title):
        return {path for path in self.origin.paths() if path.startswith(f"/titles/{title}/") and path.endswith(".m4s")}

    def hold(self, title):
        """Have both appliances hold all of a title."""
        paths = [path for path in self.origin.paths() if path.startswith(f"/titles/{title}/")]
        for place in self.playback(title).places:
            box = self.boxes[place.id]
            for path in paths:
                assert box.get(urlsplit(place.base_url).path + path.removeprefix(f"/titles/{title}/")).status == 200
            for path in paths:
                box.wait_stored(path)

    def put_in_order(self):
        for box in self.boxes.values():
            if box.process is None:
                box.launch()
        if self.replica.process is None:
            self.replica.start()
        self.replica.change({"type": "set-wish", "appliance": "near", "wish": "serve"})
        wait_until(lambda: all(self.replica.standing(name) == "serving" for name in BOXES), "both serve")


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
            patience={"rise": 1, "ramp": 1, "interval": 1, "quiet_after": 4, "silent_after": 6, "panic_least": 3},
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


@pytest.mark.parametrize("player", PLAYERS)
def test_a_title_plays_to_its_end_and_everything_is_asked_by_signed_urls(house, title, player):
    with house.pressing_play(player, title) as viewing:
        viewing.wait_over()
        asked = of_appliances(viewing)
    assert {one.path for one in asked if one.status in {200, 206}} >= house.segments(title)
    assert {one.status for one in asked} <= {200, 206}
    assert all(one.token for one in asked)
    assert {house.boxes["near"].get(path).status for path in house.segments(title)} == {401}
