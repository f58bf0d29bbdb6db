"""Pressing play, over the wire: a viewer's token and a title become places, manifests and renditions."""

import concurrent.futures
import datetime as dt
import json
import time
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.doubles.appliance import exchange, wait_until
from tests.doubles.geoip import CITY, city, write_database
from tests.doubles.origin import Origin
from tests.doubles.steering import Replica
from tests.doubles.viewers import AUDIENCE, ISSUER, LoginService
from wire.access import split_path
from wire.catalog import DASH_TYPE, HLS_TYPE, Availability, CatalogObject, Kind, Rendition, Title, title_path
from wire.codec import decode, encode
from wire.playback import Playback

INSIDE, IN_SPAIN, IN_FRANCE, NOWHERE = "10.1.2.3", "81.2.70.1", "81.2.69.160", "198.51.100.7"
"""The first is of a network that a site in Portugal announces, and in no database."""
LOGIN = LoginService()


def rendition(number, name, kind, codecs, **more):
    return Rendition(
        number=number,
        name=name,
        kind=kind,
        codecs=codecs,
        bandwidth_bps=1_000_000,
        average_bps=900_000,
        size_bytes=1,
        duration=4.0,
        objects=(CatalogObject(f"/titles/film/{name}.0a/seg-00001.m4s", 1, "ab" * 32, "video/mp4"),),
        **more,
    )


RENDITIONS = (
    rendition(1, "1080p-h264", Kind.VIDEO, "avc1.640028", width=1920, height=1080, frame_rate="24"),
    rendition(2, "480p-h264", Kind.VIDEO, "avc1.64001e", width=854, height=480, frame_rate="24"),
    rendition(3, "1080p-av1", Kind.VIDEO, "av01.0.08M.10", width=1920, height=1080, frame_rate="24"),
    rendition(4, "english", Kind.AUDIO, "mp4a.40.2", language="en", channels=2),
)


def title(name, renditions=RENDITIONS, **more):
    return Title(
        title=name,
        published_at="2026-01-01T00:00:00Z",
        duration=4.0,
        manifests=(
            CatalogObject(f"/titles/{name}/manifest.mpd", 1, "ab" * 32, DASH_TYPE),
            CatalogObject(f"/titles/{name}/master.m3u8", 1, "ab" * 32, HLS_TYPE),
        ),
        renditions=renditions,
        **more,
    )


@pytest.fixture(scope="module")
def origin():
    """The catalogue, and the log-in service."""
    with Origin() as one:
        one.put("/jwks.json", LOGIN.key_set())
        titles = [
            title("film"),
            title("ours", availability=Availability(only=("PT", "ES"))),
            title("theirs", availability=Availability(never=("PT",))),
            title("silent", RENDITIONS[:1]),
            title("gone", withdrawn_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), withdrawal_reason="rights"),
        ]
        for each in titles:
            one.put(title_path(each.title), encode(each))
        yield one


def settings_of(origin, folder, **more):
    """Tables of a replica whose viewers' keys are the origin's, with places of its own."""
    places = {"81.2.69.0/24": city("FR", 48.9, 2.3), "81.2.70.0/24": city("ES", 40.4, -3.7)}
    return {
        "content": {"origin": origin.url, "catalogue": origin.url},
        "geo": {"city": str(write_database(folder / "city.mmdb", CITY, places))},
        "playback": {"keys": f"{origin.url}/jwks.json", "issuer": ISSUER, "audience": AUDIENCE, "burst": 1000, **more},
    }


@pytest.fixture(scope="module")
def shared(origin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steering")
    keys = folder / "keys"
    keys.mkdir()
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (keys / "one.pem").write_bytes(pem)
    tokens = {"folder": str(keys), "issuer": "steer", "publish_ahead": "0 s"}
    patience = {"quiet_after": 13, "silent_after": 14}
    replica = Replica(folder / "replica").start(**settings_of(origin, folder), tokens=tokens, patience=patience)
    try:
        yield replica
        replica.stop()
    finally:
        replica.kill()


@pytest.fixture
def steering(shared):
    shared.serving()
    return shared


@pytest.fixture
def make(origin, tmp_path):
    made = []

    def one(**overrides):
        made.append(Replica(tmp_path / f"steering-{len(made)}"))
        return made[-1].start(**{**settings_of(origin, tmp_path), **overrides})

    yield one
    for replica in made:
        replica.kill()


def press(replica, name, client=INSIDE, token=None, more=""):
    headers = {"Authorization": f"Bearer {LOGIN.token() if token is None else token}"}
    return replica.public(f"/v1/playback?title={name}&client={client}{more}", **headers)


def playback(replica, *args, **kwargs):
    got = press(replica, *args, **kwargs)
    assert got.status == 200, got.body
    return decode(got.body, Playback)


def error(got):
    return got.json()["error"]


def test_who_presses_play_gets_all_that_a_player_needs(steering):
    said = playback(steering, "film")
    assert (said.title, said.duration) == ("film", 4.0)
    assert [place.id for place in said.places][2:] == ["mad-1", "origin"]
    assert [one.name for one in said.renditions] == [one.name for one in RENDITIONS]
    assert 1 <= said.ttl <= 60
    assert len(said.session) >= 22
    assert said.session != playback(steering, "film").session


def test_places_are_signed_so_that_what_is_relative_to_them_is_covered(steering):
    for place in playback(steering, "film").places[:-1]:
        token, path = split_path(urlsplit(place.base_url).path.encode())
        assert path == b"/titles/film/"
        assert jwt.get_unverified_header(token.decode())["kid"] == "one"
        assert place.hls == place.base_url + "master.m3u8"
        assert place.dash == place.base_url + "manifest.mpd"


def test_the_origin_is_the_last_place_and_is_not_signed(steering, origin):
    last = playback(steering, "film").places[-1]
    assert (last.id, last.base_url) == ("origin", f"{origin.url}/titles/film/")


def test_the_content_steering_address_answers(steering):
    said = playback(steering, "film")
    parts = urlsplit(said.content_steering)
    got = steering.public(f"{parts.path}?{parts.query}&client={INSIDE}")
    assert got.json()["PATHWAY-PRIORITY"][0] in {"lis-1", "lis-2"}


def test_the_decision_is_logged_under_its_name(steering):
    said = playback(steering, "film")

    def logged():
        lines = [json.loads(line) for line in steering.decisions.read_text().splitlines()]
        return [(line["way"], line["content"], line["chosen"][0]) for line in lines if line["id"] == said.decision]

    wait_until(logged, "the decision is in the log")
    assert logged() == [("playback", "film", said.places[0].id)]


@pytest.mark.parametrize(
    ("hints", "names"),
    [
        ("&codecs=avc1,mp4a", ["1080p-h264", "480p-h264", "english"]),
        ("&codecs=avc1.64001f,mp4a.40.2", ["480p-h264", "english"]),
        ("&codecs=avc1,av01.0.09M.10,mp4a", ["1080p-h264", "480p-h264", "1080p-av1", "english"]),
        ("&max_height=720", ["480p-h264", "english"]),
        ("&max_width=854&codecs=avc1,mp4a", ["480p-h264", "english"]),
        ("&codecs=", ["1080p-h264", "480p-h264", "1080p-av1", "english"]),
    ],
)
def test_only_what_the_device_can_play_is_named(steering, hints, names):
    assert [one.name for one in playback(steering, "film", more=hints).renditions] == names


@pytest.mark.parametrize(
    ("hints", "what"), [("&codecs=vp09,mp4a", "video"), ("&codecs=avc1", "audio"), ("&max_height=100", "video")]
)
def test_a_device_that_can_play_nothing_is_told_what_there_is(steering, hints, what):
    got = press(steering, "film", more=hints)
    assert got.status == 406
    assert error(got).startswith(f"film has no {what} that this device can play; there is: ")


def test_a_silent_film_needs_no_sound(steering):
    assert len(playback(steering, "silent", more="&codecs=avc1").renditions) == 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "title=",
        "title=UPPER",
        "title=../film",
        "title=" + "x" * 65,
        "title=film&codecs=" + "avc1," * 33,
        "title=film&codecs=<script>",
        "title=film&max_height=0",
        "title=film&max_height=-1",
        "title=film&max_width=1e9",
    ],
)
def test_a_bad_question_is_told_what_is_allowed(steering, query):
    got = steering.public(f"/v1/playback?{query}", Authorization=f"Bearer {LOGIN.token()}")
    assert got.status == 400
    assert error(got)


# --- Who may ---


def test_without_a_token_nobody_plays(steering):
    got = steering.public("/v1/playback?title=film")
    assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization" in error(got)


@pytest.mark.parametrize(
    ("claims", "word"),
    [({"exp": time.time() - 100}, "log in anew"), ({"aud": "mail"}, "aud"), ({"iss": "somebody"}, "iss")],
)
def test_who_is_not_let_in_is_told_why(steering, claims, word):
    got = press(steering, "film", token=LOGIN.token(**claims))
    assert got.status == 401
    assert word in error(got)
    assert 'error="invalid_token"' in got.headers["www-authenticate"]


def test_a_missing_scope_is_forbidden(make, origin, tmp_path):
    replica = make(**settings_of(origin, tmp_path, scope="play"))
    got = press(replica, "film")
    assert got.status == 403
    assert 'error="insufficient_scope"' in got.headers["www-authenticate"]
    assert press(replica, "film", token=LOGIN.token(scope="mail play")).status == 200


def test_pages_of_other_sites_may_send_their_token(steering):
    got = exchange(steering.public_port, "OPTIONS", "/v1/playback", {"Origin": "https://films.example"}, None)
    assert "Authorization" in got.headers["access-control-allow-headers"]
    assert press(steering, "film").headers["access-control-allow-origin"] == "*"


def test_the_log_in_service_may_change_its_keys(make, origin):
    replica = make()
    replica.serving()
    assert press(replica, "film").status == 200
    other = LoginService(kid="two")
    assert press(replica, "film", token=other.token()).status == 401
    origin.put("/jwks.json", other.key_set(LOGIN.jwk()))
    try:
        wait_until(lambda: press(replica, "film", token=other.token()).status == 200, "the new key is known")
        assert press(replica, "film").status == 200
    finally:
        origin.put("/jwks.json", LOGIN.key_set())


# --- Where ---


@pytest.mark.parametrize(
    ("name", "client", "status"),
    [
        ("ours", INSIDE, 200),
        ("ours", IN_SPAIN, 200),
        ("ours", IN_FRANCE, 451),
        ("ours", NOWHERE, 451),
        ("theirs", INSIDE, 451),
        ("theirs", IN_FRANCE, 200),
        ("theirs", NOWHERE, 200),
    ],
)
def test_a_licence_counts_where_the_viewer_is(steering, name, client, status):
    got = press(steering, name, client)
    assert got.status == status
    if status == 451:
        assert "licence" in error(got)


def test_a_withdrawn_title_is_gone_for_who_begins(steering):
    got = press(steering, "gone")
    assert (got.status, error(got)) == (410, "gone is withdrawn: nobody may begin to play it")


# --- What is away ---


def test_an_unknown_title_is_not_found(steering):
    got = press(steering, "no-such-film")
    assert (got.status, error(got)) == (404, "there is no title no-such-film")


def test_known_titles_are_played_while_catalogue_and_log_in_service_are_away(make, origin, tmp_path):
    with Origin() as away:
        away.put("/jwks.json", LOGIN.key_set())
        away.put(title_path("film"), origin.content(title_path("film")))
        replica = make(
            content={"origin": origin.url, "catalogue": away.url, "refresh": "1 s"},
            playback={"keys": f"{away.url}/jwks.json", "issuer": ISSUER, "audience": AUDIENCE},
        )
        replica.serving()
        assert press(replica, "film").status == 200
    replica.stop()
    replica.start()
    replica.serving()
    got = press(replica, "film")
    assert (got.status, got.headers["retry-after"]) == (503, "5")
    assert "film can't be said now" in error(got)
    assert press(replica, "film", token=LoginService().token()).status == 401, "the keys were kept over the restart"


def test_without_keys_nobody_is_let_in_and_it_is_said_why(make, origin, tmp_path):
    replica = make(playback={"keys": str(tmp_path / "none.json"), "issuer": ISSUER, "audience": AUDIENCE})
    got = press(replica, "film")
    assert got.status == 503
    assert "keys" in error(got)
    assert replica.steer("/titles/film/master.m3u8", INSIDE)


def test_without_appliances_the_origin_is_the_place(make):
    assert [place.id for place in playback(make(), "film").places] == ["origin"]


def test_where_playback_is_off_it_says_so(tmp_path):
    replica = Replica(tmp_path / "steering").start()
    try:
        got = press(replica, "film")
        replica.stop()
    finally:
        replica.kill()
    assert got.status == 404
    assert "[playback]" in error(got)


# --- How often ---


def test_one_viewer_can_not_press_play_for_a_thousand(make, origin, tmp_path):
    replica = make(**settings_of(origin, tmp_path, burst=3, rate=0.001))
    replica.serving()
    shared_token = LOGIN.token(sub="ana")
    clients = [f"10.{number}.0.1" for number in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda client: press(replica, "film", client, shared_token), clients))
    assert sorted(got.status for got in found) == [200] * 3 + [429] * 3
    assert all(int(got.headers["retry-after"]) > 1 for got in found if got.status == 429)
    assert press(replica, "film", token=LOGIN.token(sub="ben")).status == 200


def test_presses_are_counted_by_what_became_of_them(make):
    replica = make()
    replica.serving()
    press(replica, "film")
    press(replica, "ours", IN_FRANCE)
    press(replica, "film", token="x.y.z")
    assert replica.metric("oca_steering_playbacks_total", reason="started") == 1
    assert replica.metric("oca_steering_playbacks_total", reason="not_here") == 1
    assert replica.metric("oca_steering_viewers_refused_total", reason="malformed") == 1
    replica.stop()
