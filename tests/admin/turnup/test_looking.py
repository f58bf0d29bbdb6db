"""The film port as it is seen from outside: what it does wrong is named, by whichever way."""

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from admin.fleet.asking import Desk
from admin.fleet.known import Box
from admin.turnup.content import PATH, SIZE_BYTES, content
from admin.turnup.looking import Plan, certificates_at, read_back, ways_to
from admin.turnup.seen import Check, Way
from tests.doubles.appliance import free_port
from tests.doubles.origin import Origin

CONTENT = content()
PLAN = Plan(frozenset(Check), CONTENT, 0, 60.0)


@pytest.fixture
def port():
    """A film port that lies as it is told, and steering's word of where it is."""
    with Origin() as origin:
        origin.put(PATH, CONTENT)
        origin.put("/v1/signed", msgspec.json.encode({"url": f"{origin.url}{PATH}", "signed": False}))
        yield origin


async def read(port, **more):
    way = Way(4, "127.0.0.1", port.port, "127.0.0.1", **more)
    async with aiohttp.ClientSession() as session:
        return await read_back(Desk(port.url, session), "lis-1", way, PLAN)


async def test_what_is_right_is_read_whole_and_in_ranges(port):
    seen = await read(port)
    assert (seen.trouble, seen.ranges, seen.is_hit) == ("", 4, False)
    assert 0 < seen.first_byte <= seen.seconds
    assert [asked for asked in port.ranges(PATH) if asked is None] == [None]


async def test_a_port_that_could_not_be_reached_is_not_asked(port):
    seen = await read(port, trouble="Connection refused")
    assert seen.trouble == "can't be reached: Connection refused"
    assert port.count(PATH) == 0


def whole_instead(asked, film, reply):
    headers = {**reply.headers, "Content-Length": str(SIZE_BYTES)}
    return replace(reply, status=200, headers=headers, body=CONTENT) if asked.range else reply


def shifted(asked, film, reply):
    if asked.range and reply.status == 206:
        start, stop = asked.span(SIZE_BYTES)
        return replace(reply, body=CONTENT[start + 1 : stop + 1] if start else b"?")
    return reply


def mislabelled(asked, film, reply):
    if asked.range and reply.status == 206:
        return replace(reply, headers={**reply.headers, "Content-Range": f"bytes 0-0/{SIZE_BYTES + 1}"})
    return reply


def generous(asked, film, reply):
    return replace(reply, status=206, body=b"") if asked.range and reply.status == 416 else reply


def cut(asked, film, reply):
    return reply if asked.range else replace(reply, body=reply.body[:1_000_000], ending="reset")


def short(asked, film, reply):
    if asked.range:
        return reply
    return replace(reply, headers={**reply.headers, "Content-Length": "1000"}, body=reply.body[:1000])


def refusing(asked, film, reply):
    return replace(reply, status=401, headers={"Content-Length": "9"}, body=b"missing\n\n")


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (whole_instead, "(bytes=0-0) is answered 200"),
        (shifted, f"byte 0 of {PATH} is not the one that was published"),
        (mislabelled, "is answered with Content-Range 'bytes 0-0/33554433'; allowed: 'bytes 0-0/33554432'"),
        (generous, "(bytes=33554432-) is answered 206, ''; allowed: 416"),
        (cut, "the connection broke"),
        (short, f"{PATH} ends after 1000 bytes; allowed: 33554432"),
        (refusing, f"{PATH} is answered 401, 'missing'; allowed: 200"),
    ],
)
async def test_the_first_thing_that_is_wrong_is_named(port, lie, says):
    port.lie(PATH, lie)
    assert says in (await read(port)).trouble


# --- Ways ---


async def test_declared_addresses_are_tried_and_else_those_of_the_name():
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        declared = await ways_to(f"http://films.invalid:{port}", Box("a", "s", ipv4=("127.0.0.1", "127.0.0.9")))
        assert [(way.address, way.client, bool(way.trouble)) for way in declared] == [
            ("127.0.0.1", "127.0.0.1", False),
            ("127.0.0.9", "", True),
        ]
        named = await ways_to(f"http://127.0.0.1:{port}", Box("a", "s"))
        assert [(way.family, way.address) for way in named] == [(4, "127.0.0.1")]
        assert await ways_to("http://films.invalid", Box("a", "s")) == ()


async def test_a_family_that_this_machine_lacks_is_its_own_fault():
    # No machine has a way to where IPv6 ends: the discard prefix (RFC 6666) is given to nobody here.
    (way,) = await ways_to("http://films.invalid", Box("a", "s", ipv6=("100::1",)))
    assert way.trouble


# --- Certificates ---


def pem(folder, days):
    """Key and certificate for 127.0.0.1 in one file, and when it ends."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lis-1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "port.pem"
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain) + made.public_bytes(serialization.Encoding.PEM)
    )
    return file, made.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_the_film_ports_own_certificate_is_seen(tmp_path, monkeypatch, is_trusted):
    file, ends_at = pem(tmp_path, days=20)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", free_port(), ssl=context)
    async with listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        ways = await ways_to(url, Box("a", "s"))
        (shown,) = await certificates_at(url, ways)
    if is_trusted:
        assert (shown.ends_at, shown.trouble) == (ends_at, "")
    else:
        assert shown.ends_at is None
        assert "is not trusted here for 127.0.0.1" in shown.trouble


async def test_a_port_that_speaks_plain_http_shows_none():
    assert await certificates_at("http://127.0.0.1", [Way(4, "127.0.0.1", 80, "127.0.0.1")]) == ()
