"""Which key signs when, and what a token covers."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec import UNSET

from steering.answers.clients import packed
from steering.errors import SettingsError
from steering.settings import Tokens, TokenWay
from steering.signer import KeyFile, Signer, folder_of, read_keys, ring_of
from wire.access import split_path, split_query
from wire.token import Algorithm, SigningKey, container_of, open_token, read_key_set
from wire.toml import Seconds

HOUR = 3600.0
AHEAD, GRACE = 600.0, 24 * HOUR
FILM = "/titles/film/720p/seg-1.m4s"
CLIENT = packed("198.51.100.7")


def key(name, since):
    return KeyFile(SigningKey(name, Algorithm.EDDSA, Ed25519PrivateKey.generate()), since)


def write(path, made=None, at=None):
    made = made or Ed25519PrivateKey.generate()
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if at is not None:
        os.utime(path, (at, at))


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def signer(tmp_path, clock):
    def make(**more):
        write(tmp_path / "one.pem", at=clock.now - 2 * AHEAD)
        settings = Tokens(folder=str(tmp_path), issuer="steer", **more)
        return Signer(settings, clock, 24, 56)

    return make


# --- Keys ---


@pytest.mark.parametrize(
    ("now", "signs", "published"),
    [
        (0.0, "a", {"a": None}),
        (AHEAD, "a", {"a": None}),
        (100 * HOUR, "a", {"a": None, "b": None}),
        (100 * HOUR + AHEAD, "b", {"b": None, "a": 100 * HOUR + AHEAD + GRACE}),
        (100 * HOUR + AHEAD + GRACE, "b", {"b": None}),
    ],
)
def test_a_new_key_is_published_then_signs_and_the_old_one_is_honoured_for_a_time(now, signs, published):
    files = tuple(file for file in (key("a", 0.0), key("b", 100 * HOUR)) if file.since <= now)
    ring = ring_of(files, now, AHEAD, GRACE)
    assert ring.signing.kid == signs
    assert {one.kid: one.until for one in ring.published} == published


def test_keys_that_came_in_quick_succession_leave_no_token_without_its_key():
    files = (key("a", 0.0), key("b", 1000.0), key("c", 1001.0))
    before = ring_of(files, 1000.0, AHEAD, GRACE)
    assert before.signing.kid == "a"
    after = ring_of(files, 1001.0 + AHEAD, AHEAD, GRACE)
    assert after.signing.kid == "c"
    assert {one.kid for one in after.published} == {"a", "b", "c"}


def test_files_of_a_folder_are_keys_by_their_names(tmp_path):
    write(tmp_path / "ed.pem")
    write(tmp_path / "ec.pem", generate_private_key(SECP256R1()))
    (tmp_path / "readme.txt").write_text("not a key")
    assert {file.key.kid: file.key.algorithm for file in read_keys(str(tmp_path))} == {
        "ed": Algorithm.EDDSA,
        "ec": Algorithm.ES256,
    }


def test_a_folder_without_keys_or_with_one_that_can_not_be_used_is_named(tmp_path):
    with pytest.raises(SettingsError, match="0 "):
        read_keys(str(tmp_path))
    with pytest.raises(SettingsError, match="0 "):
        read_keys(str(tmp_path / "nowhere"))
    (tmp_path / "bad.pem").write_text("-----BEGIN NONSENSE-----")
    with pytest.raises(SettingsError, match=r"bad\.pem"):
        read_keys(str(tmp_path))
    write(tmp_path / "bad.pem", rsa_key(65537, 2048))
    with pytest.raises(SettingsError, match=r"bad\.pem"):
        read_keys(str(tmp_path))


def test_a_folder_that_breaks_leaves_the_keys_as_they_were(signer, tmp_path):
    one = signer()
    (tmp_path / "two.pem").write_text("half a key")
    one.look()
    assert one.failures == 1
    assert set(read_key_set(one.key_set())) == {"one"}


def test_tokens_follow_a_new_key_without_a_restart(signer, tmp_path, clock):
    one = signer()
    first, _ = split_path(one.signed("", FILM, CLIENT).encode())
    write(tmp_path / "two.pem", at=clock.now)
    one.look()
    assert set(read_key_set(one.key_set())) == {"one", "two"}, "published at once"
    clock.now += AHEAD
    one.look()
    second, _ = split_path(one.signed("", FILM, CLIENT).encode())
    keys = read_key_set(one.key_set())
    assert (open_token(first, keys, clock.now).key.kid, open_token(second, keys, clock.now).key.kid) == ("one", "two")


# --- Tokens ---


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        (FILM, "/titles/film"),
        ("/titles/film/master.m3u8", "/titles/film"),
        ("/titles/film", "/titles"),
        ("/posters/a/b.jpg", "/posters/a"),
        ("/x", ""),
    ],
)
def test_a_token_is_for_a_title_else_for_a_folder(path, folder):
    assert folder_of(path) == folder


@pytest.mark.parametrize(("way", "split"), [(TokenWay.PATH, split_path), (TokenWay.QUERY, None)])
def test_a_signed_url_leads_to_its_path_with_a_token_for_the_title(signer, clock, way, split):
    one = signer(way=way)
    url = one.signed("https://box.example", FILM, CLIENT).removeprefix("https://box.example").encode()
    path, _, query = url.partition(b"?")
    token, rest = split(path) if split else (split_query(query)[0], path)
    assert rest.decode() == FILM
    claims = open_token(token, read_key_set(one.key_set()), clock.now).claims
    assert (claims.iss, claims.exp, claims.oca_net) == ("steer", clock.now + 6 * HOUR, UNSET)
    assert container_of(claims.cdniuc).covers(b"https://other.example/titles/film/master.m3u8")
    assert not container_of(claims.cdniuc).covers(b"https://other.example/titles/film-2/master.m3u8")


def test_one_token_serves_a_minute_of_players(signer, clock):
    one = signer()
    first = one.signed("", FILM, CLIENT)
    clock.now += 59
    assert one.signed("", FILM, packed("203.0.113.9")) == first
    clock.now += 2
    assert one.signed("", FILM, CLIENT) != first


def test_bound_tokens_name_the_clients_network_and_are_not_shared(signer, clock):
    one = signer(bind_network=True)
    tokens = {}
    for client in ("198.51.100.7", "198.51.100.8", "203.0.113.9", "2001:db8:0:1200::1"):
        tokens[client], _ = split_path(one.signed("", FILM, packed(client)).encode())
    assert tokens["198.51.100.7"] == tokens["198.51.100.8"]
    keys = read_key_set(one.key_set())
    nets = {client: open_token(token, keys, clock.now).claims.oca_net for client, token in tokens.items()}
    assert nets["203.0.113.9"] == "203.0.113.0/24"
    assert nets["2001:db8:0:1200::1"] == "2001:db8:0:1200::/56"


def test_tokens_that_renew_say_so(signer, clock):
    one = signer(renew=Seconds(300))
    token, _ = split_path(one.signed("", FILM, CLIENT).encode())
    claims = open_token(token, read_key_set(one.key_set()), clock.now).claims
    assert (claims.cdniets, claims.cdnistt, claims.cdnistd) == (300, 1, 2)
