"""Signed access on a real appliance: three places for a token, renewal in mid-film, keys that come and go."""

import os
import signal
from urllib.parse import urljoin

import pytest

from tests.doubles.appliance import BLOCK, wait_until
from tests.doubles.keys import new_key, token_for
from tests.doubles.origin import Origin
from wire.token import Algorithm, key_set

FILM = "/titles/x/720p/seg_1.m4s"
NAME = "URISigningPackage"
KEY = new_key("first")
SECOND = new_key("second", Algorithm.ES256)
GOOD = token_for("/titles/x", KEY)


def write_keys(path, *keys):
    new = path.with_suffix(".new")
    new.write_bytes(key_set([key.public() for key in keys]))
    new.rename(path)


@pytest.fixture(scope="module")
def films():
    with Origin() as origin:
        for path in (FILM, "/titles/x/720p/seg_2.m4s", "/titles/y/720p/seg_1.m4s", "/posters/x.jpg"):
            origin.put(path, 200_000)
        origin.put("/titles/x/long.mp4", BLOCK + 1000)
        origin.put("/titles/x/720p/index.m3u8", b"#EXTM3U\nseg_1.m4s\n../720p/seg_2.m4s\n")
        yield origin


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(path, KEY)
    return path


@pytest.fixture(scope="module")
def guarded(films, key_file, module_appliance):
    """One appliance that lets in only who has a token. One worker: what one test has seen of it holds for the next."""
    return module_appliance(films.url).start(
        listen={"workers": 1},
        access={"required": True, "keys": str(key_file), "issuers": ["steering"], "public_paths": ["/posters"]},
        cors={"allow_origins": ["https://play.example"]},
    )


@pytest.fixture(autouse=True)
def first_key_alone(guarded, key_file):
    """Each test begins with the first key alone."""
    yield
    write_keys(key_file, KEY)
    wait_status(guarded, signed(FILM, token_for("/titles/x", SECOND)), 401)


def signed(path, token):
    return f"{path}?{NAME}={token}"


def wait_status(appliance, target, status):
    """Until a file of keys has been noticed: once a second it is looked at."""
    wait_until(lambda: appliance.get(target).status == status, f"{target} gets {status}")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_without_a_token_nobody_is_let_in_and_is_told_why(guarded, method):
    got = guarded.get(FILM, method, Origin="https://play.example")
    assert (got.status, got["WWW-Authenticate"]) == (401, NAME)
    assert got["Access-Control-Allow-Origin"] == "https://play.example"
    assert got["Cache-Status"] is None
    if method == "GET":
        assert got.body.startswith(b"missing: a signed URL is needed")


@pytest.mark.parametrize("place", ["query", "cookie", "path"])
def test_a_token_is_good_in_each_of_three_places_cold_and_warm(guarded, films, place):
    path = f"/titles/x/{place}/seg.m4s"
    film = films.put(path, 100_000)
    target, headers = {
        "query": (signed(path, GOOD) + "&CMCD=bl%3D100", {}),
        "cookie": (path, {"Cookie": f"{NAME}={GOOD}"}),
        "path": (f"/{NAME}={GOOD}{path}", {}),
    }[place]
    assert guarded.get(target, **headers).body == film
    guarded.wait_stored(path)
    for _ in range(2):
        got = guarded.get(target, **headers)
        assert (got.status, got.body, got.is_hit) == (200, film, True)
    span = guarded.get(target, Range="bytes=10-19", **headers)
    assert (span.status, span.body) == (206, film[10:20])
    # The token is no part of the name: one object, asked for once, and without it.
    assert [asked.path for asked in films.asked if path in asked.path] == [path]


def test_relative_urls_below_a_path_prefix_keep_the_token(guarded):
    playlist = f"/{NAME}={GOOD}/titles/x/720p/index.m3u8"
    lines = guarded.get(playlist).body.decode().splitlines()[1:]
    assert len(lines) == 2
    for line in lines:
        target = urljoin(f"http://h{playlist}", line).removeprefix("http://h")
        assert guarded.get(target).status == 200


BAD = {
    "expired": (signed(FILM, token_for("/titles/x", KEY, lives=-60)), 401),
    "not_yet": (signed(FILM, token_for("/titles/x", KEY, nbf=4e9, exp=5e9)), 403),
    "signature": (signed(FILM, token_for("/titles/x", new_key("first"))), 401),
    "unknown_key": (signed(FILM, token_for("/titles/x", SECOND)), 401),
    "uri": (signed("/titles/y/720p/seg_1.m4s", GOOD), 403),
    "network": (signed(FILM, token_for("/titles/x", KEY, oca_net="192.0.2.0/24")), 403),
    "issuer": (signed(FILM, token_for("/titles/x", KEY, iss="mallory")), 403),
    "audience": (signed(FILM, token_for("/titles/x", KEY, aud="another")), 403),
    "malformed": (signed(FILM, "rubbish"), 401),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_token_that_is_not_good_is_refused_by_name_and_counted(guarded, reason):
    target, status = BAD[reason]
    before = guarded.metric("oca_access_refusals_total", reason=reason)
    got = guarded.get(target)
    assert got.status == status
    assert got.body.startswith(f"{reason}: ".encode())
    # A refusal does not end the connection: the player may ask again with a better token.
    assert got["Connection"] is None
    assert guarded.metric("oca_access_refusals_total", reason=reason) == before + 1


def test_no_spelling_of_a_path_leads_out_of_what_a_token_covers(guarded):
    for path in (
        "/titles/x/..%2Fy/720p/seg_1.m4s",
        "/titles/x/../y/720p/seg_1.m4s",
        "/titles/x%2f..%2fy/720p/seg_1.m4s",
    ):
        with guarded.wire() as wire:
            assert wire.get(signed(path, GOOD)).status == 403


def test_a_token_for_the_clients_own_network_is_good(guarded):
    assert guarded.get(signed(FILM, token_for("/titles/x", KEY, oca_net="127.0.0.0/8"))).status == 200


def test_public_paths_and_preflights_need_no_token(guarded):
    assert guarded.get("/posters/x.jpg").status == 200
    preflight = guarded.get(FILM, "OPTIONS", Origin="https://play.example")
    assert preflight.status == 204
    assert preflight["Access-Control-Allow-Origin"] == "https://play.example"
    assert preflight["Access-Control-Allow-Credentials"] == "true"


def test_in_mid_film_a_cookie_takes_over_from_the_url(guarded, key_file):
    short = {"lives": 3000, "cdnistt": 1, "cdniets": 7200, "cdnistd": 2}
    first = signed(FILM, token_for("/titles/x", KEY, **short))
    # The box makes its own key at its first start; the worker notices within a second.
    got = wait_until(lambda: (one := guarded.get(first))["Set-Cookie"] and one, "tokens are renewed")
    assert got.status == 200
    cookie, *attributes = got["Set-Cookie"].split("; ")
    assert {"Path=/titles/x", "HttpOnly"} <= set(attributes)
    # The URL's token is over by now, the cookie's is not.
    over = signed(FILM, token_for("/titles/x", KEY, lives=-60))
    for _ in range(2):
        got = guarded.get(over, Cookie=cookie)
        assert (got.status, got["Set-Cookie"]) == (200, None)
    assert guarded.get(over).status == 401
    assert guarded.get("/titles/y/720p/seg_1.m4s", Cookie=cookie).status == 403
    # Renewal comes with what was found, and with nothing else.
    assert guarded.get(first, Range="bytes=0-9")["Set-Cookie"]
    assert guarded.get(first, "HEAD")["Set-Cookie"]
    assert guarded.get(first, If_None_Match="*").status == 304
    assert guarded.get(first, If_None_Match="*")["Set-Cookie"] is None
    assert guarded.get(first, Range="bytes=900000-")["Set-Cookie"] is None
    # When the key that vouched for the viewer is withdrawn, so is the cookie.
    write_keys(key_file, SECOND)
    wait_status(guarded, signed(FILM, GOOD), 401)
    assert guarded.get(FILM, Cookie=cookie).status == 401


def test_keys_are_rotated_without_a_gap(guarded, key_file):
    old, new = signed(FILM, GOOD), signed(FILM, token_for("/titles/x", SECOND))
    assert guarded.get(new).status == 401
    write_keys(key_file, KEY, SECOND)
    wait_status(guarded, new, 200)
    assert guarded.get(old).status == 200
    write_keys(key_file, SECOND)
    wait_status(guarded, old, 401)
    assert guarded.get(new).status == 200


def test_a_broken_file_of_keys_is_reported_and_the_known_keys_go_on(guarded, key_file):
    before = guarded.metric("oca_access_key_faults_total")
    os.truncate(key_file, 10)
    wait_until(lambda: guarded.metric("oca_access_key_faults_total") > before, "it was noticed")
    assert guarded.get(signed(FILM, GOOD)).status == 200
    assert "keys.json: not a" in guarded.log.read_text()


def test_verdicts_are_remembered_and_counted(guarded):
    target = signed(FILM, token_for("/titles/x", KEY))
    names = ("remembered", "verified")
    before = {name: guarded.metric("oca_access_tokens_total", verdict=name) for name in names}
    assert [guarded.get(target).status for _ in range(8)] == [200] * 8
    after = {name: guarded.metric("oca_access_tokens_total", verdict=name) for name in names}
    assert [after[name] - before[name] for name in names] == [7, 1]


def test_a_token_that_ends_in_the_middle_of_an_answer_does_not_cut_it(guarded, films, key_file):
    """What was allowed when it was asked for is sent to its end."""
    with guarded.wire(receive_buffer=4096) as wire:
        wire.ask(signed("/titles/x/long.mp4", GOOD))
        assert wire.head().status == 200
        write_keys(key_file, SECOND)
        wait_status(guarded, signed(FILM, GOOD), 401)
        assert wire.read(BLOCK + 1000) == films.content("/titles/x/long.mp4")


def test_where_no_token_is_needed_one_does_no_harm_wherever_it_stands(appliance, origin, path):
    film = origin.put(path, 5000)
    for target in (path, signed(path, GOOD), f"/{NAME}={GOOD}{path}", f"/{NAME}=rubbish{path}"):
        assert appliance.get(target, Cookie=f"{NAME}=x").body == film
        appliance.wait_landed()
    assert len(origin.ranges(path)) == 1


def test_switching_access_on_and_off_cuts_nobody(make_appliance, films, tmp_path):
    write_keys(tmp_path / "keys.json", KEY)
    one = make_appliance(films.url).start()
    target = f"/{NAME}={GOOD}{FILM}"
    assert one.get(FILM).status == 200
    one.write_settings(access={"required": True, "keys": str(tmp_path / "keys.json")})
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: [one.get(FILM).status for _ in range(8)] == [401] * 8, "the new settings rule")
    assert one.get(target).status == 200
    one.write_settings()
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: [one.get(FILM).status for _ in range(8)] == [200] * 8, "the new settings rule")
    assert one.get(target).status == 200


def test_parents_let_the_appliances_below_them_in(make_appliance, films, tmp_path):
    write_keys(tmp_path / "keys.json", KEY)
    access = {"required": True, "keys": str(tmp_path / "keys.json")}
    parent = make_appliance(films.url, name="parent").start(access={**access, "trusted_networks": ["127.0.0.0/8"]})
    child = make_appliance(films.url, name="child").start(access=access, parents=[{"url": parent.url}])
    assert child.get(FILM).status == 401
    assert child.get(signed(FILM, GOOD)).status == 200
    assert child.metric("oca_fetch_bytes_total") > 0
    assert parent.metric("oca_misses_total") == 1
