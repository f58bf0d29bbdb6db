"""Credentials: a mistake stops the start, and the sentence says what is allowed."""

import datetime as dt
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oca.credentials import check_credentials, read_token, tls_context
from oca.errors import SettingsError
from oca.settings import Steering, parse_settings
from tests.oca.test_settings import GOOD, STEERING


@pytest.fixture
def token(tmp_path):
    def write(content, mode=0o600):
        path = tmp_path / "token"
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    return write


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of our own and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "oca")])
    now = dt.datetime.now(dt.UTC)
    later = now + dt.timedelta(days=2)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, later)
    authority = x509.BasicConstraints(ca=True, path_length=None)
    cert = builder.add_extension(authority, critical=True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.mark.parametrize("content", [b"abc", b"abc\n", b"eyJ.x-y_z~+/=="])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_token_is_one_line(token, content, mode):
    assert read_token(token(content, mode)) == content.decode().strip()


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"with space", b"a\r\n", b"\xff", b"a" * 513])
def test_what_is_no_token_is_refused(token, content):
    with pytest.raises(SettingsError, match="holds no token; allowed: one line"):
        read_token(token(content))


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_token_that_everybody_can_read_is_refused(token, mode):
    with pytest.raises(SettingsError, match="everybody on this machine can read it"):
        read_token(token(b"abc", mode))


def test_a_token_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"steering\.token_file .*/none: can't be read: No such file"):
        read_token(str(tmp_path / "none"))


def test_a_pipe_into_which_nobody_writes_is_no_token(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SettingsError, match="holds no token"):
        read_token(str(tmp_path / "pipe"))


def test_certificates_are_read(certificate):
    cert, key = certificate
    context = tls_context(Steering(("https://s",), ca_file=cert, client_cert=cert, client_key=key))
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("broken", ["ca_file", "client_cert", "client_key"])
def test_a_certificate_that_is_none_is_named(certificate, tmp_path, broken):
    cert, key = certificate
    (tmp_path / "broken").write_text("no certificate")
    good = {"ca_file": cert, "client_cert": cert, "client_key": key}
    with pytest.raises(SettingsError, match=f"{broken} {tmp_path}/broken"):
        tls_context(Steering(("https://s",), **{**good, broken: str(tmp_path / "broken")}))


def test_only_what_the_settings_name_is_looked_at(token):
    check_credentials(parse_settings(GOOD, ""))
    check_credentials(parse_settings(GOOD + STEERING.replace("/t'", token(b"abc") + "'"), ""))
    with pytest.raises(SettingsError, match=r"steering\.token_file /t"):
        check_credentials(parse_settings(GOOD + STEERING, ""))
