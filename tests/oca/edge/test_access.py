"""The worker's gate: who is let in, what is remembered of a token, and what is never remembered."""

import os
import socket
import time

import msgspec
import pytest

from oca.counters import COUNTERS_BYTES, REFUSALS, REFUSALS_AT, Count
from oca.edge import access as module
from oca.edge.access import Gate
from oca.edge.tally import Tally
from oca.http.refusal import Refused
from oca.http.request import parse_head
from oca.settings import BindNetwork, parse_settings
from oca.store.board import new_memory
from oca.store.key_files import make_own_key
from tests.doubles.keys import new_key, token_for
from wire.access import Refusal
from wire.token import Claims, Opened, canonical_uri, hash_container, key_set, mint

SETTINGS = """\
[appliance]
id = "oca-test"
state_dir = "{folder}"
[origin]
url = "http://127.0.0.1:1"
[[device]]
path = "/nowhere"
tier = "nvme"
capacity = "1 GiB"
[access]
required = true
keys = "{folder}/keys.json"
"""
FILM = "/titles/x/720p/seg_1.m4s"
KEY = new_key("k1")


@pytest.fixture
def tally():
    fd = new_memory("test-counters", COUNTERS_BYTES)
    yield Tally(fd, 0)
    os.close(fd)


@pytest.fixture
def sock():
    """A client at 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as _client:
        ours, _ = server.accept()
        with ours:
            yield ours


class Door:
    """A gate, and a short way to knock at it."""

    def __init__(self, folder, tally, sock):
        self.folder = folder
        self.tally = tally
        self.sock = sock
        self.write_keys(KEY)
        make_own_key(str(folder / "renewal-key.pem"))
        self.open()

    def open(self, **settings):
        whole = parse_settings(SETTINGS.format(folder=self.folder), "")
        changed = msgspec.structs.replace(whole.access, **settings)
        self.gate = Gate(msgspec.structs.replace(whole, access=changed), self.tally)
        self.gate.look()
        return self

    def write_keys(self, *keys):
        (self.folder / "new.json").write_bytes(key_set([key.public() for key in keys]))
        (self.folder / "new.json").rename(self.folder / "keys.json")

    def knock(self, target, *, cookie=None, host="h"):
        """The path that is served and the lines that renew, or why not."""
        lines = f"Cookie: {cookie}\r\n" if cookie else ""
        request = parse_head(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode(), 100)
        try:
            raw, renewal = self.gate.admit(request, self.sock)
        except Refused as refused:
            return self.reason_of(refused)
        return raw.decode(), renewal

    def reason_of(self, refused):
        reason = Refusal(refused.reason.partition(":")[0])
        assert (refused.status, refused.closes) == (reason.status, False)
        return reason

    def lets_in(self, token, path=FILM):
        found = self.knock(f"{path}?URISigningPackage={token}")
        return found if isinstance(found, Refusal) else found[0] == path


@pytest.fixture
def door(tmp_path, tally, sock):
    return Door(tmp_path, tally, sock)


GOOD = token_for("/titles/x", KEY)
OVER = token_for("/titles/x", KEY, lives=-3600)


@pytest.mark.parametrize(
    ("target", "cookie", "expected"),
    [
        (FILM, None, Refusal.MISSING),
        (f"{FILM}?URISigningPackage={GOOD}", None, FILM),
        (f"{FILM}?a=1&URISigningPackage={GOOD}&CMCD=bl%3D1", None, FILM),
        (f"/URISigningPackage={GOOD}{FILM}", None, FILM),
        (f"/URISigningPackage={GOOD}{FILM}?CMCD=bl%3D1", None, FILM),
        (f"http://other{FILM}?URISigningPackage={GOOD}", None, FILM),
        (f"http://other/URISigningPackage={GOOD}{FILM}", None, FILM),
        (FILM, f"URISigningPackage={GOOD}", FILM),
        (FILM, f"a=1; URISigningPackage={GOOD}; b=2", FILM),
        # One good token is enough, and the refusal is about the URL's.
        (f"{FILM}?URISigningPackage={OVER}", f"URISigningPackage={GOOD}", FILM),
        (f"/URISigningPackage={OVER}{FILM}?URISigningPackage={GOOD}", None, FILM),
        (f"{FILM}?URISigningPackage={OVER}", "URISigningPackage=x.y.z", Refusal.EXPIRED),
        (f"{FILM}?URISigningPackage=", None, Refusal.MALFORMED),
        (f"{FILM}?URISigningPackage={'a' * 5000}", None, Refusal.TOO_LARGE),
        (f"/titles/y/a?URISigningPackage={GOOD}", None, Refusal.URI),
        (f"/titles/xy/a?URISigningPackage={GOOD}", None, Refusal.URI),
    ],
)
def test_who_is_let_in_and_to_what(door, target, cookie, expected):
    found = door.knock(target, cookie=cookie)
    assert (found if isinstance(found, Refusal) else found[0]) == expected


@pytest.mark.parametrize(
    "spelling",
    [
        "/titles/x/../y/a",
        "/titles/x/%2e%2e/y/a",
        "/titles/x/..%2Fy/a",
        "/titles/x%2F..%2F..%2Ftitles/y/a",
        "/%74itles/y/a",
        f"/URISigningPackage={GOOD}/titles/y/a",
    ],
)
def test_however_a_path_is_spelled_it_is_judged_by_what_would_be_served(door, spelling):
    assert door.lets_in(GOOD, spelling) is Refusal.URI


def test_a_path_that_climbs_out_of_the_root_is_no_path(door):
    with pytest.raises(Refused, match="climbs"):
        door.gate.admit(parse_head(f"GET /URISigningPackage={GOOD}/../x HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 9), None)


def test_a_second_token_before_the_path_is_part_of_the_path(door):
    """Else a token would open what it was never compared with."""
    everything = mint(Claims(cdniuc="regex:.*"), KEY)
    raw, _ = door.knock(f"/URISigningPackage={everything}/URISigningPackage=x/titles/y/a")
    assert raw == "/URISigningPackage=x/titles/y/a"
    assert door.knock(f"/URISigningPackage={GOOD}/URISigningPackage=x/titles/x/a") is Refusal.URI


def test_a_hash_is_for_one_url_with_its_host_and_query(door):
    token = mint(Claims(cdniuc=hash_container(canonical_uri(b"http", b"h", "/a", b"b=1"))), KEY)
    assert door.knock(f"/a?b=1&URISigningPackage={token}") == ("/a", b"")
    assert door.knock(f"/a?URISigningPackage={token}&b=1", host="H:80") == ("/a", b"")
    assert door.knock(f"/a?b=2&URISigningPackage={token}") is Refusal.URI
    assert door.knock(f"/a?b=1&URISigningPackage={token}", host="other") is Refusal.URI


@pytest.mark.parametrize(
    ("claims", "settings", "expected"),
    [
        ({"lives": 60}, {}, True),
        ({"lives": -60}, {}, Refusal.EXPIRED),
        ({"lives": -60}, {"clock_skew": 3600.0}, True),
        ({"nbf": 4e9}, {}, Refusal.NOT_YET),
        ({}, {"issuers": ("steering", "x")}, True),
        ({}, {"issuers": ("x",)}, Refusal.ISSUER),
        ({"aud": "oca-test"}, {}, True),
        ({"aud": "films"}, {"audience": ("films",)}, True),
        ({"aud": "films"}, {}, Refusal.AUDIENCE),
        ({"cdniv": 2}, {}, Refusal.VERSION),
        ({"cdnicrit": "color"}, {}, Refusal.CRITICAL),
        ({"cdniip": "x"}, {}, Refusal.UNSUPPORTED),
        ({"cdniuc": "regex:("}, {}, Refusal.CONTAINER),
        ({"oca_net": "127.0.0.0/8"}, {}, True),
        ({"oca_net": ("10.0.0.0/8", "127.0.0.1/32")}, {}, True),
        ({"oca_net": "10.0.0.0/8"}, {}, Refusal.NETWORK),
        ({"oca_net": "10.0.0.0/8"}, {"bind_network": BindNetwork.OFF}, True),
        ({"oca_net": "10.0.0.0/8"}, {"bind_network": BindNetwork.SAME_FAMILY}, Refusal.NETWORK),
        ({"oca_net": "2001:db8::/32"}, {}, Refusal.NETWORK),
        ({"oca_net": "2001:db8::/32"}, {"bind_network": BindNetwork.SAME_FAMILY}, True),
        ({"oca_net": ("2001:db8::/32", "10.0.0.0/8")}, {"bind_network": BindNetwork.SAME_FAMILY}, Refusal.NETWORK),
        ({"oca_net": "home"}, {}, Refusal.MALFORMED),
        ({}, {"max_token_bytes": 256}, Refusal.TOO_LARGE),
    ],
    ids=str,
)
def test_claims_are_judged_by_the_settings_the_first_time_and_every_other(door, claims, settings, expected):
    door.open(**settings)
    token = token_for("/titles/x", KEY, **claims)
    assert [door.lets_in(token) for _ in range(3)] == [expected] * 3
    assert door.tally.words[Count.TOKENS_VERIFIED] <= 1


def test_a_client_that_is_gone_comes_from_no_network(door):
    door.sock.close()
    assert door.lets_in(token_for("/titles/x", KEY, oca_net="0.0.0.0/0")) is Refusal.NETWORK


# --- Public paths and other appliances --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "is_public"),
    [
        ("/posters/a.jpg", True),
        ("/posters", True),
        ("/posters/", True),
        ("/%70osters/a.jpg", True),
        ("/postersx", False),
        ("/posters/../titles/x/a", False),
        ("/posters%2F..%2Ftitles/x/a", False),
        ("/titles/x/posters/a", False),
        ("/free/one.mp4", True),
        ("/free/one.mp4/more", True),
        ("/free/one.mp4x", False),
    ],
)
def test_public_paths_need_no_token_however_they_are_spelled(door, path, is_public):
    door.open(public_paths=("/posters/", "/free/one.mp4"))
    found = door.knock(path)
    assert found == ((path, b"") if is_public else Refusal.MISSING)
    assert door.knock(f"/URISigningPackage=rubbish{path}") == ((path, b"") if is_public else Refusal.MALFORMED)


def test_appliances_that_fetch_from_this_one_need_no_token(door):
    assert door.open(trusted_networks=("10.0.0.0/8",)).knock(FILM) is Refusal.MISSING
    assert door.open(trusted_networks=("10.0.0.0/8", "127.0.0.0/8")).knock(FILM) == (FILM, b"")


# --- What is remembered -----------------------------------------------------------------------------------------------


def test_a_token_is_verified_once_and_compared_each_time(door):
    for number in range(5):
        assert door.lets_in(GOOD, f"/titles/x/{number}") is True
        assert door.lets_in(GOOD, f"/titles/y/{number}") is Refusal.URI
    words = door.tally.words
    assert (words[Count.TOKENS_VERIFIED], words[Count.TOKENS_REMEMBERED]) == (1, 9)


def test_what_is_remembered_does_not_outlive_its_time(door):
    assert door.lets_in(GOOD) is True
    (verdict,) = door.gate._verdicts.values()
    # As if its hour were over meanwhile.
    ended = Opened(msgspec.structs.replace(verdict.opened.claims, exp=time.time() - 60), verdict.opened.key)
    door.gate._verdicts[GOOD.encode()] = module.Verdict(ended, verdict.container, None, 5.0)
    assert door.lets_in(GOOD) is Refusal.EXPIRED
    assert door.tally.words[Count.TOKENS_VERIFIED] == 1


def test_bad_tokens_are_remembered_too_and_can_not_push_out_good_ones(door):
    assert door.lets_in(GOOD) is True
    forged = new_key("k1")
    token = token_for("/titles/x", forged)
    assert [door.lets_in(token) for _ in range(3)] == [Refusal.SIGNATURE] * 3
    assert door.tally.words[Count.TOKENS_VERIFIED] == 2
    for number in range(module._REFUSALS + 10):
        door.lets_in(f"{number}.x.y")
    assert len(door.gate._refusals) <= module._REFUSALS
    verified = door.tally.words[Count.TOKENS_VERIFIED]
    assert door.lets_in(GOOD) is True
    assert door.tally.words[Count.TOKENS_VERIFIED] == verified


def test_of_more_tokens_than_are_remembered_those_in_use_stay(door):
    claims = Claims(cdniuc="regex:.*")
    tokens = [mint(msgspec.structs.replace(claims, sub=str(number)), KEY) for number in range(30)]
    door.lets_in(GOOD)
    door.lets_in(GOOD)
    known = dict(door.gate._verdicts)
    some = next(iter(known.values()))
    for number in range(module._VERDICTS - 1):
        door.gate._verdicts[b"filler-%d" % number] = module.Verdict(some.opened, some.container, None, 0.0)
    for token in tokens:
        door.lets_in(token)
        door.lets_in(GOOD)
    assert len(door.gate._verdicts) <= module._VERDICTS
    assert door.tally.words[Count.TOKENS_VERIFIED] == 1 + len(tokens)


def test_refusals_are_counted_by_reason(door):
    door.lets_in(GOOD, "/titles/y")
    door.lets_in(GOOD, "/titles/y")
    door.knock(FILM)
    counted = {reason: door.tally.words[REFUSALS_AT + place] for place, reason in enumerate(REFUSALS)}
    assert {reason: count for reason, count in counted.items() if count} == {Refusal.URI: 2, Refusal.MISSING: 1}


# --- Keys that change -------------------------------------------------------------------------------------------------


def test_a_new_file_of_keys_counts_at_once_and_a_key_that_left_it_no_more(door):
    new = new_key("k2")
    token = token_for("/titles/x", new)
    assert door.lets_in(GOOD) is True
    assert door.lets_in(token) is Refusal.UNKNOWN_KEY
    door.write_keys(KEY, new)
    door.gate.look()
    assert (door.lets_in(GOOD), door.lets_in(token)) == (True, True)
    door.write_keys(new)
    door.gate.look()
    assert (door.lets_in(GOOD), door.lets_in(token)) == (Refusal.UNKNOWN_KEY, True)


def test_an_old_key_is_honoured_until_its_moment_also_for_what_is_remembered(door):
    body = key_set([KEY.public(time.time() + 3600)])
    (door.folder / "keys.json").write_bytes(body)
    door.gate.look()
    assert door.lets_in(mint(Claims(cdniuc="regex:.*"), KEY)) is True
    (verdict,) = door.gate._verdicts.values()
    assert verdict.ends_at == verdict.opened.key.until


@pytest.mark.parametrize("body", [b"", b"{", b'{"keys": []}', None])
def test_a_broken_file_of_keys_is_reported_once_and_the_old_keys_go_on(door, body, caplog):
    file = door.folder / "keys.json"
    file.unlink()
    if body is not None:
        file.write_bytes(body)
    for _ in range(3):
        door.gate.look()
    assert door.lets_in(token_for("/titles/x", KEY)) is True
    assert len([line for line in caplog.messages if "keys.json" in line]) == 1
    assert door.tally.words[Count.KEY_FAULTS] == 1


def test_without_any_keys_nobody_is_let_in_until_they_come(tmp_path, tally, sock):
    door = Door(tmp_path, tally, sock)
    keys = (tmp_path / "keys.json").read_bytes()
    (tmp_path / "keys.json").unlink()
    door.open()
    assert door.lets_in(GOOD) is Refusal.UNKNOWN_KEY
    (tmp_path / "keys.json").write_bytes(keys)
    door.gate.look()
    assert door.lets_in(GOOD) is True


# --- Renewal ----------------------------------------------------------------------------------------------------------

DUE = {"lives": 20, "cdnistt": 1, "cdniets": 60, "cdnistd": 2}


def cookie_of(renewal: bytes) -> str:
    line = renewal.split(b"\r\n")[0]
    assert line.startswith(b"Set-Cookie: URISigningPackage=")
    return line.partition(b": ")[2].split(b";")[0].decode()


def test_a_token_that_ends_soon_brings_another_which_all_segments_share(door):
    token = token_for("/titles/x", KEY, **DUE)
    raw, renewal = door.knock(f"{FILM}?URISigningPackage={token}")
    assert raw == FILM
    assert b"Path=/titles/x; Max-Age=" in renewal
    assert b'Cache-Control: no-cache="Set-Cookie"' in renewal
    again = door.knock(f"{FILM}?URISigningPackage={token}")[1]
    assert cookie_of(again) == cookie_of(renewal)
    assert door.tally.words[Count.TOKENS_RENEWED] == 1
    # The cookie is good, and not yet renewed itself.
    assert door.knock(FILM, cookie=cookie_of(renewal)) == (FILM, b"")
    assert door.knock(f"{FILM}?URISigningPackage={OVER}", cookie=cookie_of(renewal)) == (FILM, b"")
    assert door.knock("/titles/y/a", cookie=cookie_of(renewal)) is Refusal.URI


@pytest.mark.parametrize(
    ("claims", "settings"),
    [
        ({**DUE, "lives": 3600}, {}),
        ({**DUE, "cdnistt": 0}, {}),
        ({"lives": 20}, {}),
        (DUE, {"renewal_limit": 0.0}),
        ({**DUE, "iat": 1e9}, {"renewal_limit": 3600.0}),
    ],
    ids=["long", "none", "plain", "off", "over"],
)
def test_tokens_that_are_not_renewed(door, claims, settings):
    door.open(**settings)
    token = token_for("/titles/x", KEY, **claims)
    assert door.knock(f"{FILM}?URISigningPackage={token}") == (FILM, b"")


def test_a_renewed_token_is_good_only_while_the_key_that_vouched_for_the_first_is(door):
    new = new_key("k2")
    token = token_for("/titles/x", KEY, **DUE)
    cookie = cookie_of(door.knock(f"{FILM}?URISigningPackage={token}")[1])
    door.write_keys(KEY, new)
    door.gate.look()
    assert door.knock(FILM, cookie=cookie) == (FILM, b"")
    door.write_keys(new)
    door.gate.look()
    assert door.knock(FILM, cookie=cookie) is Refusal.UNKNOWN_KEY


def test_a_renewed_token_is_good_only_at_the_box_that_renewed_it(door, tmp_path_factory, sock):
    token = token_for("/titles/x", KEY, **DUE)
    cookie = cookie_of(door.knock(f"{FILM}?URISigningPackage={token}")[1])
    other = Door(tmp_path_factory.mktemp("other"), door.tally, sock)
    assert other.knock(FILM, cookie=cookie) is Refusal.UNKNOWN_KEY
    # The same box after a restart.
    assert door.open().knock(FILM, cookie=cookie) == (FILM, b"")


def test_our_own_key_can_vouch_for_nobody(door):
    """Whoever steals it still needs a key of the set that vouched first; without one the token says nothing."""
    own = door.gate._own
    assert door.lets_in(token_for("/titles/x", own)) is Refusal.UNKNOWN_KEY


def test_a_renewed_token_keeps_its_network(door):
    token = token_for("/titles/x", KEY, **DUE, oca_net="127.0.0.0/8")
    cookie = cookie_of(door.knock(f"{FILM}?URISigningPackage={token}")[1])
    assert door.knock(FILM, cookie=cookie) == (FILM, b"")
    (_, verdict) = door.gate._verdicts.values()
    assert verdict.opened.claims.oca_net == "127.0.0.0/8"
