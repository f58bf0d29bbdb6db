"""Who may press play."""

import base64
import hmac
import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from steering.viewers import (
    ALGORITHMS,
    MOST_KEYS,
    MOST_TOKEN,
    BadKeySet,
    Viewer,
    ViewerRefusal,
    Wanted,
    bearer,
    kid_of,
    let_in,
    read_keys,
)
from tests.doubles.viewers import AUDIENCE, ISSUER, LoginService

WANTED = Wanted(ISSUER, AUDIENCE, None, 60.0)
SERVICE = LoginService()
KEYS = read_keys(SERVICE.key_set())
NOW = time.time()


def refusal(token, keys=KEYS, wanted=WANTED, now=NOW):
    return let_in(token, keys, wanted, now)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_viewer_with_a_token_of_each_algorithm_is_let_in(algorithm):
    service = LoginService(algorithm)
    assert let_in(service.token(sub="ana"), read_keys(service.key_set()), WANTED, NOW) == Viewer("ana")


def test_a_token_without_a_key_id_is_of_the_only_key():
    service = LoginService(kid=None)
    assert let_in(service.token(), read_keys(service.key_set()), WANTED, NOW) == Viewer("ana")
    two = read_keys(service.key_set(SERVICE.jwk()))
    assert refusal(service.token(), two) is ViewerRefusal.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": NOW - 61}, ViewerRefusal.EXPIRED),
        ({"exp": None}, ViewerRefusal.EXPIRED),
        ({"nbf": NOW + 61}, ViewerRefusal.NOT_YET),
        ({"iss": "https://elsewhere.example"}, ViewerRefusal.ISSUER),
        ({"iss": None}, ViewerRefusal.ISSUER),
        ({"aud": "mail"}, ViewerRefusal.AUDIENCE),
        ({"aud": ["mail", "chat"]}, ViewerRefusal.AUDIENCE),
        ({"aud": []}, ViewerRefusal.AUDIENCE),
        ({"aud": None}, ViewerRefusal.AUDIENCE),
        ({"exp": "tomorrow"}, ViewerRefusal.MALFORMED),
        ({"exp": True}, ViewerRefusal.MALFORMED),
        ({"aud": {"films": 1}}, ViewerRefusal.MALFORMED),
        ({"sub": 7}, ViewerRefusal.MALFORMED),
    ],
)
def test_claims_are_checked(claims, why):
    assert refusal(SERVICE.token(**claims)) is why


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 59}, {"nbf": NOW + 59}, {"nbf": NOW - 1}, {"aud": ["mail", AUDIENCE]}, {"sub": None}]
)
def test_clocks_may_differ_a_little_and_audiences_may_be_many(claims):
    assert isinstance(refusal(SERVICE.token(**claims)), Viewer)


@pytest.mark.parametrize("claims", [{"scope": "mail play"}, {"scp": ["mail", "play"]}, {"scp": "play"}])
def test_the_scope_may_be_said_in_each_of_the_usual_ways(claims):
    assert isinstance(refusal(SERVICE.token(**claims), wanted=Wanted(ISSUER, AUDIENCE, "play", 0)), Viewer)


@pytest.mark.parametrize("claims", [{}, {"scope": "player"}, {"scope": ""}, {"scp": ["mail"]}])
def test_a_token_without_the_scope_is_a_good_one_but_not_for_this(claims):
    why = refusal(SERVICE.token(**claims), wanted=Wanted(ISSUER, AUDIENCE, "play", 0))
    assert why is ViewerRefusal.SCOPE
    assert (why.status, 'error="insufficient_scope"' in why.challenge) == (403, True)


def test_another_key_of_the_same_name_is_refused():
    assert refusal(LoginService().token()) is ViewerRefusal.SIGNATURE


def test_a_changed_token_is_refused():
    head, payload, signature = SERVICE.token().split(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**said, "sub": "eve"}).encode()).rstrip(b"=").decode()
    assert refusal(f"{head}.{forged}.{signature}") is ViewerRefusal.SIGNATURE


def test_a_token_of_a_key_that_is_not_there_is_refused():
    assert refusal(LoginService(kid="two").token()) is ViewerRefusal.UNKNOWN_KEY
    assert kid_of(LoginService(kid="two").token()) == "two"


def unsigned(**header):
    parts = ({"alg": "none", "kid": "one", **header}, {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def test_none_is_no_algorithm():
    assert refusal(unsigned()) is ViewerRefusal.ALGORITHM


def test_a_public_key_is_never_a_secret():
    """The best known attack on JWT: HMAC with the public key as its secret."""
    secret = SERVICE.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = unsigned(alg="HS256").rstrip(".")
    code = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
    assert refusal(f"{signed}.{code}") is ViewerRefusal.ALGORITHM


def test_a_key_verifies_only_what_it_is_for():
    rs, ps = LoginService("RS256"), LoginService("PS256")
    keys = read_keys(json.dumps({"keys": [rs.jwk(alg="RS256")]}).encode())
    assert isinstance(refusal(rs.token(), keys), Viewer)
    assert refusal(ps.token(), keys) is ViewerRefusal.ALGORITHM
    assert refusal(SERVICE.token(), read_keys(rs.key_set())) is ViewerRefusal.ALGORITHM


def test_a_token_that_insists_on_something_unknown_is_refused():
    assert refusal(SERVICE.token(header={"crit": ["b64"], "b64": False})) is ViewerRefusal.MALFORMED


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "ey.ey.ey", "[]." * 3, "{}", "e30.e30.e30", "💥.💥.💥"])
def test_what_is_no_token_is_refused(token):
    assert refusal(token) is ViewerRefusal.MALFORMED
    assert kid_of(token) is None


@given(st.text(max_size=200))
def test_anything_may_come_as_a_token(text):
    assert isinstance(refusal(text), ViewerRefusal)


@given(st.integers(0, len(SERVICE.token()) - 1), st.characters(codec="ascii"))
def test_no_changed_character_makes_another_viewer(at, character):
    token = SERVICE.token(exp=NOW + 1000)
    assert refusal(token[:at] + character + token[at + 1 :]) in {*ViewerRefusal, Viewer("ana")}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, ViewerRefusal.MISSING),
        ("", ViewerRefusal.MISSING),
        ("Basic dXNlcjpwYXNz", ViewerRefusal.MISSING),
        ("Bearer", ViewerRefusal.MALFORMED),
        ("Bearer  ", ViewerRefusal.MALFORMED),
        ("Bearer " + "x" * (MOST_TOKEN + 1), ViewerRefusal.MALFORMED),
        ("Bearer tökén", ViewerRefusal.MALFORMED),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
    ],
)
def test_the_token_stands_in_the_authorization_header(header, found):
    assert bearer(header) == found


def test_who_brings_nothing_is_told_what_is_needed_and_no_error():
    assert ViewerRefusal.MISSING.challenge == "Bearer"
    assert 'error="invalid_token"' in ViewerRefusal.EXPIRED.challenge
    assert ViewerRefusal.EXPIRED.status == 401


@pytest.mark.parametrize("why", ViewerRefusal)
def test_each_refusal_has_a_sentence_that_a_header_can_carry(why):
    assert why.sentence.isascii()
    assert '"' not in why.sentence


# --- Key sets ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"keys": 3}',
        b'{"keys": []}',
        b'{"keys": [3]}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b"\xff",
        b"[" * 100_000,
        json.dumps({"keys": [SERVICE.jwk()] * (MOST_KEYS + 1)}).encode(),
        json.dumps({"keys": [SERVICE.jwk(use="enc")]}).encode(),
        json.dumps({"keys": [SERVICE.jwk(alg="HS256")]}).encode(),
        json.dumps({"keys": [SERVICE.jwk(crv="P-384")]}).encode(),
        json.dumps({"keys": [SERVICE.jwk(x="!!")]}).encode(),
        json.dumps({"keys": [SERVICE.jwk(x=7)]}).encode(),
        json.dumps({"keys": [SERVICE.jwk(d="secret")]}).encode(),
    ],
)
def test_a_set_without_a_key_that_can_be_used_is_refused(body):
    with pytest.raises(BadKeySet):
        read_keys(body)


def test_keys_that_can_not_be_used_are_passed_over():
    weak = LoginService("RS256", key=rsa.generate_private_key(65537, 1024)).jwk(kid="weak")
    other = LoginService("ES256", key=ec.generate_private_key(ec.SECP256R1())).jwk(kid="two", use="sig", alg="ES256")
    keys = read_keys(SERVICE.key_set(weak, {"kty": "oct", "k": "AA", "kid": "secret"}, other))
    assert len(keys) == 2
    assert keys.of("weak") is None
    assert keys.of("two") is not None
