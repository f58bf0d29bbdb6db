"""URI signing: every claim and rule of RFC 9246, and what must hold for any token."""

import base64
import hashlib
import hmac
import json
from ipaddress import ip_address

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.keys import new_key
from wire.access import Refusal
from wire.codec import WireError
from wire.token import (
    MAX_KEY_SET_BYTES,
    MAX_PATTERN_BYTES,
    Algorithm,
    Claims,
    KeyRing,
    Opened,
    Transport,
    canonical_uri,
    client_address,
    container_of,
    folder_container,
    hash_container,
    is_within,
    key_set,
    mint,
    networks_of,
    open_token,
    out_of_time,
    read_key_set,
    renewal_cookie,
    renewal_due_at,
    renewed,
    signing_key,
    unacceptable,
)

NOW = 1_800_000_000.0
FILM = folder_container("/titles/x")
EDDSA = new_key("ed-1")
ES256 = new_key("ec-1", Algorithm.ES256)
KEYS = {key.kid: key.public() for key in (EDDSA, ES256)}
SIGNERS = [EDDSA, ES256]
DEEP = b"[" * 5000 + b"]" * 5000


def b64(data) -> bytes:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def signed(header, payload, key=EDDSA) -> bytes:
    """A token with any header and payload, and a right Ed25519 signature."""
    text = b64(header) + b"." + b64(payload)
    return text + b"." + b64(key.key.sign(text))


# --- Minting and opening ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", SIGNERS, ids=lambda key: key.algorithm)
def test_a_minted_token_says_what_was_minted(key):
    claims = Claims(
        cdniuc=FILM, iss="s", sub="v", aud=("a", "b"), exp=NOW, nbf=1, iat=2, cdniets=60, cdnistt=1, cdnistd=2
    )
    assert open_token(mint(claims, key).encode(), KEYS, NOW) == Opened(claims, key.public())


@pytest.mark.parametrize("key", SIGNERS, ids=lambda key: key.algorithm)
def test_pyjwt_verifies_what_we_mint_and_we_what_it_mints(key):
    token = mint(Claims(cdniuc=FILM, exp=4e9), key)
    assert jwt.decode(token, key.key.public_key(), [key.algorithm]) == {"cdniuc": FILM, "exp": 4e9}
    assert jwt.get_unverified_header(token)["kid"] == key.kid
    theirs = jwt.encode({"cdniuc": FILM, "aud": ["a"]}, key.key, key.algorithm, {"kid": key.kid})
    assert open_token(theirs.encode(), KEYS, NOW).claims == Claims(cdniuc=FILM, aud=("a",))


texts = st.text(max_size=20)
moments = st.floats(0, 4e9)
any_claims = st.builds(
    Claims,
    cdniuc=texts,
    iss=texts,
    aud=texts | st.lists(texts, max_size=3).map(tuple),
    exp=moments,
    nbf=moments,
    cdniets=st.integers(1, 86400),
    cdnistt=st.sampled_from(list(Transport)).map(int),
    cdnistd=st.integers(0, 10),
)


@given(any_claims, st.sampled_from(SIGNERS))
def test_whatever_is_minted_is_opened(claims, key):
    opened = open_token(mint(claims, key).encode(), KEYS, NOW)
    assert opened == Opened(claims, key.public())


TOKENS = [mint(Claims(cdniuc=FILM, exp=NOW), key).encode() for key in SIGNERS]


@given(st.sampled_from(TOKENS), st.data())
def test_a_token_with_any_bit_flipped_is_refused(token, data):
    at = data.draw(st.integers(0, len(token) * 8 - 1))
    flipped = bytearray(token)
    flipped[at // 8] ^= 1 << at % 8
    assert isinstance(open_token(bytes(flipped), KEYS, NOW), Refusal)


@given(st.sampled_from(TOKENS), st.data())
def test_a_token_with_anything_cut_out_or_put_in_is_refused(token, data):
    start = data.draw(st.integers(0, len(token)))
    stop = data.draw(st.integers(start, len(token)))
    other = token[:start] + data.draw(st.binary(max_size=5)) + token[stop:]
    assert other == token or isinstance(open_token(other, KEYS, NOW), Refusal)


@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_never_raises(rubbish):
    assert open_token(rubbish, KEYS, NOW) is Refusal.MALFORMED


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"", Refusal.MALFORMED),
        (b"a.b", Refusal.MALFORMED),
        (b"a.b.c.d", Refusal.MALFORMED),
        (TOKENS[0] + b"=", Refusal.MALFORMED),
        (signed(b"not json", {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed([], {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed({"kid": "ed-1"}, {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed(b'{"alg":"EdDSA","kid":"ed-1","x":' + DEEP + b"}", {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed(b'{"alg":"EdDSA","kid":"ed-1","crit":' + DEEP + b"}", {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed({"alg": "EdDSA", "kid": "ed-1"}, b'{"cdniuc":"regex:a","x":' + DEEP + b"}"), Refusal.MALFORMED),
        (signed(b'{"alg":"EdDSA","kid":"\\ud800"}', {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed({"alg": "EdDSA", "kid": 5}, {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed({"alg": "EdDSA"}, {"cdniuc": FILM}), Refusal.UNKNOWN_KEY),
        (signed({"alg": "EdDSA", "kid": "other"}, {"cdniuc": FILM}), Refusal.UNKNOWN_KEY),
        (signed({"alg": "none", "kid": "ed-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        (signed({"alg": "None", "kid": "ed-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        (signed({"alg": "", "kid": "ed-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        (signed({"alg": "HS256", "kid": "ed-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        (signed({"alg": "RS256", "kid": "ed-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        # A key is for one algorithm.
        (signed({"alg": "ES256", "kid": "ed-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        (signed({"alg": "EdDSA", "kid": "ec-1"}, {"cdniuc": FILM}), Refusal.ALGORITHM),
        (signed({"alg": "EdDSA", "kid": "ed-1", "crit": ["x"]}, {"cdniuc": FILM}), Refusal.CRITICAL),
        (signed({"alg": "EdDSA", "kid": "ed-1", "b64": False}, {"cdniuc": FILM}), Refusal.MALFORMED),
        (signed({"alg": "EdDSA", "kid": "ed-1"}, {"cdniuc": FILM}, new_key("ed-1")), Refusal.SIGNATURE),
    ],
)
def test_a_token_of_a_wrong_shape_key_or_algorithm(token, reason):
    assert open_token(token, KEYS, NOW) is reason


def test_a_public_key_is_never_taken_for_a_shared_one():
    """The classic: HS256 keyed with the public key's own bytes."""
    text = b64({"alg": "HS256", "kid": "ed-1"}) + b"." + b64({"cdniuc": FILM})
    mac = hmac.digest(EDDSA.key.public_key().public_bytes_raw(), text, "sha256")
    assert open_token(text + b"." + b64(mac), KEYS, NOW) is Refusal.ALGORITHM


def test_an_unsigned_token_is_refused():
    text = b64({"alg": "none", "kid": "ed-1"}) + b"." + b64({"cdniuc": FILM})
    assert open_token(text + b".", KEYS, NOW) is Refusal.MALFORMED
    assert open_token(text + b".AA", KEYS, NOW) is Refusal.ALGORITHM


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        [],
        {},
        {"cdniuc": 5},
        {"cdniuc": None},
        {"cdniuc": FILM, "exp": "tomorrow"},
        {"cdniuc": FILM, "exp": None},
        {"cdniuc": FILM, "exp": True},
        {"cdniuc": FILM, "nbf": "now"},
        {"cdniuc": FILM, "aud": 5},
        {"cdniuc": FILM, "aud": [5]},
        {"cdniuc": FILM, "iss": ["a"]},
        {"cdniuc": FILM, "cdniets": 0},
        {"cdniuc": FILM, "cdniets": -5},
        {"cdniuc": FILM, "cdniets": 1.5},
        {"cdniuc": FILM, "cdnistd": -1},
        {"cdniuc": FILM, "cdnicrit": ["oca_net"]},
        {"cdniuc": FILM, "oca_net": 5},
    ],
    ids=str,
)
def test_claims_of_a_wrong_type_are_malformed(payload):
    assert open_token(signed({"alg": "EdDSA", "kid": "ed-1"}, payload), KEYS, NOW) is Refusal.MALFORMED


def test_claims_that_nobody_insists_on_are_passed_over():
    token = signed({"alg": "EdDSA", "kid": "ed-1"}, {"cdniuc": FILM, "color": "blue", "x": {"y": 1}})
    assert open_token(token, KEYS, NOW).claims == Claims(cdniuc=FILM)


# --- What does not change ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, None),
        ({"cdniv": 1}, None),
        ({"cdniv": 2}, Refusal.VERSION),
        ({"cdniv": 0}, Refusal.VERSION),
        ({"aud": "oca-1"}, None),
        ({"aud": ("x", "films")}, None),
        ({"aud": "oca"}, Refusal.AUDIENCE),
        ({"aud": ()}, Refusal.AUDIENCE),
        ({"sub": "viewer"}, None),
        ({"iat": 5e9}, None),
        ({"cdniip": "jwe"}, Refusal.UNSUPPORTED),
        ({"jti": "once"}, Refusal.UNSUPPORTED),
        ({"cdnistt": 0, "cdniets": 60}, None),
        ({"cdnistt": 1, "cdniets": 60}, None),
        ({"cdnistt": 2, "cdniets": 60}, None),
        ({"cdnistt": 1}, Refusal.MALFORMED),
        ({"cdnistt": 2}, Refusal.MALFORMED),
        ({"cdnistt": 3, "cdniets": 60}, Refusal.UNSUPPORTED),
        ({"cdnistt": -1, "cdniets": 60}, Refusal.UNSUPPORTED),
        ({"cdnicrit": "oca_net", "oca_net": "10.0.0.0/8"}, None),
        ({"cdnicrit": "oca_net"}, Refusal.CRITICAL),
        ({"cdnicrit": ""}, Refusal.CRITICAL),
        ({"cdnicrit": "oca_net,", "oca_net": "10.0.0.0/8"}, Refusal.CRITICAL),
        ({"cdnicrit": "oca_net,oca_net", "oca_net": "10.0.0.0/8"}, Refusal.CRITICAL),
        ({"cdnicrit": "oca_net,color", "oca_net": "10.0.0.0/8"}, Refusal.CRITICAL),
        ({"cdnicrit": "exp", "exp": 1.0}, Refusal.CRITICAL),
        ({"cdnicrit": "__class__"}, Refusal.CRITICAL),
    ],
    ids=str,
)
def test_what_a_token_may_hold(claims, reason):
    assert unacceptable(Claims(cdniuc=FILM, **claims), frozenset(), frozenset({"oca-1", "films"})) is reason


@pytest.mark.parametrize(
    ("issuer", "reason"), [("steering", None), ("other", Refusal.ISSUER), (msgspec.UNSET, Refusal.ISSUER)]
)
def test_where_issuers_are_named_a_token_must_come_from_one(issuer, reason):
    assert unacceptable(Claims(cdniuc=FILM, iss=issuer), frozenset({"steering"}), frozenset()) is reason


@pytest.mark.parametrize(
    ("claims", "now", "reason"),
    [
        ({}, 1e12, None),
        ({"exp": 100.0}, 99.9, None),
        ({"exp": 100.0}, 104.9, None),
        ({"exp": 100.0}, 105.0, Refusal.EXPIRED),
        ({"nbf": 100.0}, 95.0, None),
        ({"nbf": 100.0}, 94.9, Refusal.NOT_YET),
        ({"nbf": 100.0, "exp": 50.0}, 80.0, Refusal.EXPIRED),
    ],
    ids=str,
)
def test_time_is_compared_with_the_allowed_difference_of_clocks(claims, now, reason):
    assert out_of_time(Claims(cdniuc=FILM, **claims), now, 5.0) is reason


# --- Which URLs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "path", "query", "uri"),
    [
        (b"h", "/a", b"", b"http://h/a"),
        (b"H.Example:8080", "/A", b"", b"http://h.example:8080/A"),
        (b"h:80", "/", b"", b"http://h/"),
        (b"h:", "/", b"", b"http://h/"),
        (b"h:8080", "/", b"", b"http://h:8080/"),
        (b"[2001:DB8::80]", "/", b"", b"http://[2001:db8::80]/"),
        (b"", "/a", b"", b"http:///a"),
        (b"h", "/a b/é", b"", b"http://h/a%20b/%C3%A9"),
        # What was `%3F` and `%23` must not become a query or a fragment.
        (b"h", "/a?b#c", b"", b"http://h/a%3Fb%23c"),
        (b"h", "/a", b"b=1&c", b"http://h/a?b=1&c"),
        (b"h", "/a", b"b=%2f%41%7e%zz", b"http://h/a?b=%2FA~%zz"),
    ],
)
def test_urls_have_one_spelling(host, path, query, uri):
    assert canonical_uri(b"http", host, path, query) == uri


def test_the_port_that_goes_without_saying_depends_on_the_scheme():
    assert canonical_uri(b"https", b"h:443", "/", b"") == b"https://h/"
    assert canonical_uri(b"https", b"h:80", "/", b"") == b"https://h:80/"


@pytest.mark.parametrize(
    ("pattern", "uri", "is_covered"),
    [
        ("http://h/a", b"http://h/a", True),
        # The whole URL, not a part of it.
        ("http://h/a", b"http://h/ab", False),
        ("h/a", b"http://h/a", False),
        ("a|b", b"a", True),
        ("a|b", b"ac", False),
        ("^a$", b"a", True),
        (".*", b"http://h/anything?at=all", True),
        ("http://h/[a-c]{2}[0-9]+", b"http://h/ab12", True),
        ("http://h/[[:alpha:]]+", b"http://h/abc", True),
        ("(a|b)*c", b"ababc", True),
        (r"http://h/a\.b", b"http://h/a.b", True),
        (r"http://h/a\.b", b"http://h/axb", False),
        ("HTTP://h/a", b"http://h/a", False),
        ("a", b"a\n", False),
        ("", b"a", False),
        # Repetitions that would keep a backtracking matcher busy until the sun goes out.
        ("(a+)+b", b"a" * 4000, False),
        ("(a|a)*b", b"a" * 4000, False),
        ("(.*)*(.*)*(.*)*x", b"a" * 4000, False),
    ],
)
def test_patterns(pattern, uri, is_covered):
    container = container_of("regex:" + pattern)
    assert container is not None
    assert container.covers(uri) is is_covered


@pytest.mark.parametrize(
    "cdniuc",
    [
        "",
        "regex",
        "glob:*",
        "http://h/a",
        "regex:(",
        "regex:[",
        "regex:a{2,1}",
        "regex:a{100000}",
        "regex:((((a{100}){100}){100}){100}){100}",
        # Perl's, not POSIX's.
        r"regex:\d+",
        "regex:(?=a)",
        r"regex:(a)\1",
        "regex:é",
        "regex:" + "a" * (MAX_PATTERN_BYTES + 1),
        "hash:",
        "hash:sha-256",
        "hash:sha-256;",
        "hash:sha-256;AAAA",
        "hash:sha-256;" + "A" * 43 + "=",
        "hash:sha-1;" + "A" * 27,
        "hash:md5;" + "A" * 43,
        "hash:sha-256;" + "+" * 43,
    ],
)
def test_containers_that_can_not_be_used(cdniuc):
    assert container_of(cdniuc) is None


@given(st.text(st.sampled_from("ab(){}[]|*+?.^$\\,0123456789:-"), max_size=60), st.binary(max_size=60))
def test_a_hostile_pattern_is_refused_or_answers(pattern, uri):
    container = container_of("regex:" + pattern)
    assert container is None or container.covers(uri) in (True, False)


def test_a_hash_is_that_of_rfc_6920():
    uri = b"http://h/a?b=1"
    expected = base64.urlsafe_b64encode(hashlib.sha256(uri).digest()).decode().rstrip("=")
    assert hash_container(uri) == f"hash:sha-256;{expected}"
    container = container_of(hash_container(uri))
    assert container.covers(uri)
    assert not container.covers(uri + b"2")


@pytest.mark.parametrize(
    ("uri", "is_covered"),
    [
        (b"http://h/titles/x.1/seg", True),
        (b"https://other:8080/titles/x.1/a/b/c.m4s?CMCD=bl%3D1", True),
        (b"http://h/titles/x.1/", True),
        (b"http://h/titles/x.1", False),
        (b"http://h/titles/xy1/seg", False),
        (b"http://h/titles/x.12/seg", False),
        (b"http://h/other?/titles/x.1/", False),
        (b"http://h/other/titles/x.1/seg", False),
    ],
)
def test_a_folder_covers_what_is_below_it(uri, is_covered):
    assert container_of(folder_container("/titles/x.1")).covers(uri) is is_covered


paths = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"), min_size=1, max_size=8)


@given(paths, paths)
def test_a_folder_of_any_name_covers_its_own_and_nobody_elses(folder, name):
    container = container_of(folder_container(f"/titles/{folder}"))
    assert container is not None
    assert container.covers(canonical_uri(b"http", b"h", f"/titles/{folder}/{name}", b""))
    assert not container.covers(canonical_uri(b"http", b"h", f"/titles/{folder}{name}", b""))


# --- Which clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oca_net", "address", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.0/24", "::ffff:192.0.2.77", True),
        ("192.0.2.0/24", "2001:db8::1", False),
        (("192.0.2.0/24", "2001:db8::/32"), "2001:db8::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("192.0.2.1/24", "192.0.2.1", Refusal.MALFORMED),
        ("home", "192.0.2.1", Refusal.MALFORMED),
        ((), "192.0.2.1", Refusal.MALFORMED),
        (("10.0.0.0/8",) * 17, "10.0.0.1", Refusal.MALFORMED),
    ],
    ids=str,
)
def test_networks(oca_net, address, expected):
    networks = networks_of(Claims(cdniuc=FILM, oca_net=oca_net))
    found = networks if isinstance(networks, Refusal) else is_within(client_address(address), networks)
    assert found == expected


def test_a_token_without_a_network_is_bound_to_none():
    assert networks_of(Claims(cdniuc=FILM)) is None


def test_a_minter_insists_on_the_network():
    opened = open_token(mint(Claims(cdniuc=FILM, oca_net="10.0.0.0/8"), EDDSA).encode(), KEYS, NOW)
    assert opened.claims.cdnicrit == "oca_net"
    assert mint(opened.claims, EDDSA) == mint(Claims(cdniuc=FILM, oca_net="10.0.0.0/8"), EDDSA)


def test_an_address_of_a_client_is_an_address():
    assert client_address("2001:db8::1") == ip_address("2001:db8::1")


# --- Renewal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "due_at"),
    [
        ({"exp": 1000.0, "cdnistt": 1, "cdniets": 60}, 970.0),
        ({"exp": 1000.0, "cdnistt": 2, "cdniets": 60}, 970.0),
        ({"exp": 1000.0, "cdnistt": 0, "cdniets": 60}, None),
        ({"exp": 1000.0, "cdniets": 60}, None),
        ({"cdnistt": 1, "cdniets": 60}, None),
    ],
    ids=str,
)
def test_a_token_is_renewed_when_half_of_a_new_ones_life_is_left(claims, due_at):
    assert renewal_due_at(Claims(cdniuc=FILM, **claims)) == due_at


def opened(key=EDDSA, **claims) -> Opened:
    return Opened(Claims(cdniuc=FILM, cdnistt=1, cdniets=60, **claims), key.public())


def test_a_renewed_token_lives_from_the_moment_of_validation():
    new = renewed(opened(exp=NOW + 20, nbf=5.0, iss="s", sub="v"), "own", NOW, 3600)
    assert (new.exp, new.iat, new.nbf) == (NOW + 60, NOW, msgspec.UNSET)
    assert (new.iss, new.sub, new.cdniuc, new.oca_kid, new.oca_since) == ("s", "v", FILM, "ed-1", NOW)


def test_a_chain_of_renewals_ends_after_its_limit_and_keeps_the_first_key():
    own = new_key("own")
    link, now = opened(exp=NOW + 60, iat=NOW), NOW
    while True:
        now = renewal_due_at(link.claims)
        claims = renewed(link, "own", now, 1000)
        if claims is None:
            break
        assert (claims.oca_kid, claims.oca_since) == ("ed-1", NOW)
        assert link.claims.exp < claims.exp <= NOW + 1000
        link = Opened(claims, own.public())
    assert link.claims.exp == NOW + 1000


def test_what_an_issuer_says_of_our_own_claims_does_not_count():
    new = renewed(opened(exp=NOW + 20, oca_kid="other", oca_since=9e9), "own", NOW, 30)
    assert (new.oca_kid, new.oca_since, new.exp) == ("ed-1", NOW, NOW + 30)


def test_a_token_that_lives_longer_than_its_successor_would_is_not_renewed():
    assert renewed(opened(exp=NOW + 61), "own", NOW, 3600) is None
    assert renewed(opened(exp=NOW + 10, iat=NOW - 100), "own", NOW, 100) is None
    assert renewed(Opened(Claims(cdniuc=FILM, exp=NOW), EDDSA.public()), "own", NOW, 3600) is None


@pytest.mark.parametrize(
    ("path", "prefix", "depth", "cookie_path"),
    [
        ("/titles/x/720p/seg.m4s", b"", 0, b"/"),
        ("/titles/x/720p/seg.m4s", b"", 1, b"/titles"),
        ("/titles/x/720p/seg.m4s", b"", 2, b"/titles/x"),
        ("/titles/x/720p/seg.m4s", b"", 9, b"/titles/x/720p/seg.m4s"),
        ("/titles/a b/seg.m4s", b"", 2, b"/titles/a%20b"),
        # A semicolon would end the attribute.
        ("/titles/a;Domain=x/seg.m4s", b"", 2, b"/"),
        ("/titles/x/seg.m4s", b"tok.en.x", 2, b"/URISigningPackage=tok.en.x/titles/x"),
        ("/titles/x/seg.m4s", b"tok.en.x", 0, b"/URISigningPackage=tok.en.x"),
        ("/titles/x/seg.m4s", b"t" * 1100, 0, b"/"),
    ],
)
def test_a_renewed_cookie_is_for_the_first_segments_of_the_path(path, prefix, depth, cookie_path):
    claims = Claims(cdniuc=FILM, exp=NOW + 60, cdniets=60, cdnistd=depth)
    cookie = renewal_cookie("new", claims, path, prefix, now=NOW, secure=False)
    assert cookie == b"URISigningPackage=new; Path=%b; Max-Age=60; HttpOnly" % cookie_path


def test_over_https_a_cookie_may_be_used_by_pages_of_other_sites():
    claims = Claims(cdniuc=FILM, exp=NOW + 60)
    cookie = renewal_cookie("new", claims, "/x", b"", now=NOW, secure=True)
    assert cookie.endswith(b"; Secure; SameSite=None")


# --- Keys -------------------------------------------------------------------------------------------------------------


def jwk(key, **more):
    return {**json.loads(key_set([key.public()]))["keys"][0], **more}


def test_a_key_set_is_read_as_it_was_written():
    keys = [EDDSA.public(NOW + 5), ES256.public()]
    assert read_key_set(key_set(keys)) == {"ed-1": keys[0], "ec-1": keys[1]}
    assert b'"d"' not in key_set(keys)


PRIVATE_EC = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ES256.key))
RSA = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key()))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "no key"),
        ([{**RSA, "kid": "rsa"}], "no key"),
        ([jwk(EDDSA, use="enc")], "no key"),
        ([jwk(ES256, alg="ECDH-ES")], "no key"),
        ([jwk(EDDSA, key_ops=["encrypt"])], "no key"),
        ([jwk(EDDSA), {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}], "shared secret"),
        ([jwk(EDDSA), {**PRIVATE_EC, "kid": "p"}], "private key"),
        ([jwk(EDDSA, kid=None)], "needs a kid"),
        ([jwk(EDDSA, kid="")], "needs a kid"),
        ([jwk(EDDSA, kid="k" * 129)], "needs a kid"),
        ([jwk(EDDSA), jwk(ES256, kid="ed-1")], "twice"),
        ([jwk(ES256, x=jwk(ES256)["y"])], "is not a public key"),
        ([jwk(EDDSA, x="AAAA")], "is not a public key"),
        ([jwk(ES256, y=None)], "is not a public key"),
        ([jwk(EDDSA)] * 65, "allowed: 64"),
        ([5], "not a"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_set_that_can_not_be_used(keys, words):
    with pytest.raises(WireError, match=words):
        read_key_set(json.dumps({"keys": keys}).encode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys": 5}', b"\xff", b'{"x":' + DEEP + b"}", b" " * (MAX_KEY_SET_BYTES + 1)]
)
def test_rubbish_is_no_key_set(body):
    with pytest.raises(WireError):
        read_key_set(body)


def test_keys_of_other_kinds_are_passed_over():
    body = json.dumps({"keys": [{**RSA, "kid": "rsa"}, {"kty": "new"}, jwk(EDDSA, use="enc", kid="e"), jwk(EDDSA)]})
    assert list(read_key_set(body.encode())) == ["ed-1"]


def test_a_key_is_honoured_until_its_moment():
    token = mint(Claims(cdniuc=FILM), EDDSA).encode()
    keys = {"ed-1": EDDSA.public(NOW)}
    assert isinstance(open_token(token, keys, NOW - 1), Opened)
    assert open_token(token, keys, NOW) is Refusal.UNKNOWN_KEY


def test_after_a_rotation_the_old_key_is_honoured_for_its_grace_and_then_forgotten():
    old, new, newest = new_key("old"), new_key("new"), new_key("newest")
    ring = KeyRing(old).rotated(new, NOW, 600)
    assert [key.kid for key in ring.public_keys(NOW)] == ["new", "old"]
    assert [key.kid for key in ring.public_keys(NOW + 600)] == ["new"]
    token = mint(Claims(cdniuc=FILM), old).encode()
    published = read_key_set(key_set(ring.public_keys(NOW)))
    assert isinstance(open_token(token, published, NOW + 599), Opened)
    assert open_token(token, published, NOW + 600) is Refusal.UNKNOWN_KEY
    assert [key.kid for key in ring.rotated(newest, NOW + 700, 600).retired] == ["new"]


@pytest.mark.parametrize("key", SIGNERS, ids=lambda key: key.algorithm)
def test_a_private_key_is_read_from_pem(key):
    pem = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    read = signing_key(pem, key.kid)
    assert (read.algorithm, read.public()) == (key.algorithm, key.public())


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n",
        ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        Ed25519PrivateKey.generate().public_key().public_bytes_raw(),
    ],
    ids=["empty", "rubbish", "P-384", "RSA", "raw"],
)
def test_what_is_no_private_key_of_ours_is_refused_without_being_shown(pem):
    with pytest.raises(WireError) as refused:
        signing_key(pem, "k")
    assert "secret" not in str(refused.value)
