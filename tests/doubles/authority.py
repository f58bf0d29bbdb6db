"""A certificate authority of a test."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """What it signs is good for a day, and for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        self.certificate = self._signed(self._name, self._key.public_key(), is_authority=True)
        self.path = folder / "authority.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def sign(
        self,
        name: str,
        file: str,
        *,
        hosts: Iterable[str] = (),
        uri: str | None = None,
        begins: dt.datetime | None = None,
    ) -> str:
        """A certificate and its key in one file. `hosts`: names that it is for, besides 127.0.0.1."""
        key = Ed25519PrivateKey.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        if uri is not None:
            names.append(x509.UniformResourceIdentifier(uri))
        certificate = self._signed(subject, key.public_key(), is_authority=False, names=names, begins=begins)
        path = self.folder / file
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        new = path.with_suffix(".new")
        new.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
        new.chmod(0o600)
        new.replace(path)
        return str(path)

    def trusted(self) -> ssl.SSLContext:
        """A client's context that trusts it, and nobody else."""
        return ssl.create_default_context(cafile=str(self.path))

    def _signed(
        self,
        subject: x509.Name,
        public: Ed25519PublicKey,
        *,
        is_authority: bool,
        names: Iterable[x509.GeneralName] = (),
        begins: dt.datetime | None = None,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(self._name, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(begins or now - dt.timedelta(days=1)).not_valid_after(
            now + dt.timedelta(days=1)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *names])
        return builder.add_extension(local, critical=False).sign(self._key, None)
