"""TLS of the film ports: certificates by name, renewed without a restart, session tickets that all workers share."""

from __future__ import annotations

import logging
import mmap
import os
import ssl
import stat
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509

from oca.errors import SettingsError
from oca.openssl import KEY_BYTES, Keys, TicketsNotShared, share_tickets
from oca.settings import Certificate, Settings, TlsVersion
from oca.store.board import TICKETS_BYTES
from wire.identity import AUTHORITY_FILE, FOLDER, IDENTITY_FILE, REVOKED_FILE, appliance_of

log = logging.getLogger(__name__)

_HEADER: Final = struct.Struct("<Qd")
_SLOTS: Final = 3
_MOST_REVOKED: Final = 4 * 1024 * 1024
_VERSIONS: Final = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}
# Forward secrecy and authenticated encryption only (RFC 9325 section 4.2), AES first: processors have it built in.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_ULP: Final = Path("/proc/sys/net/ipv4/tcp_available_ulp")


class TicketKeys:
    """Keys of session tickets in memory that the supervisor owns: the keeper writes, workers read.

    The header counts the keys there have been and says when the last one came; the last three lie behind it, each at
    the place that its number gives. A key is written before the header says that it is there.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, TICKETS_BYTES)
        self._count = 0
        self._keys: Keys = ()

    def rotate(self, now: float, interval: float) -> None:
        """The keeper: a new key if the last one is older than `interval`, or lies in the future."""
        count, at = _HEADER.unpack_from(self._map)
        if count and 0 <= now - at < interval:
            return
        place = _HEADER.size + count % _SLOTS * KEY_BYTES
        self._map[place : place + KEY_BYTES] = os.urandom(KEY_BYTES)
        _HEADER.pack_into(self._map, 0, count + 1, now)

    def look(self) -> Keys:
        """The newest, and the one before; of a keeper that is not there yet, none."""
        count = _HEADER.unpack_from(self._map)[0]
        if count != self._count:
            places = [_HEADER.size + number % _SLOTS * KEY_BYTES for number in range(count - 1, max(-1, count - 3), -1)]
            self._keys = tuple(bytes(self._map[place : place + KEY_BYTES]) for place in places)
            self._count = count
        return self._keys


def kernel_tls() -> str:
    """Whether the kernel could encrypt what `sendfile` sends: "available", or why not."""
    try:
        offered = _ULP.read_text().split()
    except OSError as error:
        return f"not known: {error.strerror}"
    return "available" if "tls" in offered else "not in this kernel (CONFIG_TLS)"


def check_certificates(settings: Settings) -> None:
    """Raises `SettingsError` if the settings name a certificate or a key that can't be used."""
    for certificate in settings.certificate:
        _film_context(settings, certificate)


class FilmContexts:
    """Of `listen.https`: a context for each certificate, chosen by the name that a player asks for."""

    def __init__(self, settings: Settings, tickets: TicketKeys | None, on_fault: Callable[[], None]) -> None:
        """Raises `SettingsError` if a certificate can't be used: at the start that is told to the operator."""
        self._settings = settings
        self._tickets = tickets
        self._on_fault = on_fault
        self._is_shared = True
        self._seen: list[object] = [None] * len(settings.certificate)
        self._contexts: list[ssl.SSLContext] = []
        self._names: dict[str, ssl.SSLContext] = {}
        for place, certificate in enumerate(settings.certificate):
            self._seen[place] = _stamps(certificate.cert, certificate.key)
            self._contexts.append(self._made(certificate))
        self._name_all()

    @property
    def default(self) -> ssl.SSLContext:
        return self._contexts[0]

    def look(self) -> None:
        """Take up certificates that changed. Called once a second."""
        if self._tickets is not None:
            self._tickets.look()
        changed = False
        for place, certificate in enumerate(self._settings.certificate):
            stamps = _stamps(certificate.cert, certificate.key)
            if stamps == self._seen[place]:
                continue
            self._seen[place] = stamps
            try:
                self._contexts[place] = self._made(certificate)
            except SettingsError as error:
                self._on_fault()
                log.error("%s; the pair that was there before is used", error)
            else:
                changed = True
                log.info("certificate %s is taken up", certificate.cert)
        if changed:
            self._name_all()

    def _made(self, certificate: Certificate) -> ssl.SSLContext:
        context = _film_context(self._settings, certificate)
        if self._tickets is None:
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        elif self._is_shared:
            tickets = self._tickets
            try:
                share_tickets(context, lambda: tickets.look() or (_NO_KEEPER,))
            except TicketsNotShared as error:
                self._is_shared = False
                log.warning("session tickets are each worker's own: %s", error)
        return context

    def _name_all(self) -> None:
        self._names.clear()
        for certificate, context in zip(self._settings.certificate, self._contexts, strict=True):
            for name in names_of(certificate.cert):
                self._names.setdefault(name, context)
        only = len(self._contexts) == 1
        for context in self._contexts:
            # One certificate needs nobody to choose.
            context.sni_callback = None if only else self._choose

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        """RFC 6066 section 3; who asks for a name that nobody has gets the first certificate."""
        if name is not None:
            name = name.lower()
            context = self._names.get(name) or self._names.get(f"*.{name.partition('.')[2]}")
            if context is not None:
                connection.context = context


# Nobody knows it: a ticket under it is honoured by the worker that gave it out, until the keeper has written keys.
_NO_KEEPER: Final = os.urandom(KEY_BYTES)


class FleetContext:
    """Of `listen.fleet`: appliances of our own authority only, by the certificate that they got when enrolled."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(settings.appliance.state_dir) / FOLDER
        self._identity = str(folder / IDENTITY_FILE)
        self._authority = str(folder / AUTHORITY_FILE)
        self._revoked_file = folder / REVOKED_FILE
        self._seen: object = None
        self._seen_revoked: object = None
        self._revoked: dict[str, float] = {}
        self.context: ssl.SSLContext | None = None
        """None while this appliance is not enrolled: nobody can be let in."""

    def look(self) -> bool:
        """Take up files that changed. Called once a second. Whether more are revoked than before."""
        stamps = _stamps(self._identity, self._authority)
        if stamps != self._seen:
            self._seen = stamps
            self._take_up()
        revoked = _stamps(str(self._revoked_file))
        if revoked == self._seen_revoked:
            return False
        self._seen_revoked = revoked
        try:
            with self._revoked_file.open("rb") as file:
                self._revoked = msgspec.json.decode(file.read(_MOST_REVOKED), type=dict[str, float])
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s: %s; who was revoked before still is", self._revoked_file, error)
            return False
        return True

    def _take_up(self) -> None:
        context = _server_context(ssl.TLSVersion.TLSv1_3)
        # Resumed, a session would be believed without its certificate being looked at again.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self._identity)
            context.load_verify_locations(self._authority)
        except OSError as error:  # ssl.SSLError is one.
            if self.context is None:
                log.warning("listen.fleet lets nobody in: %s: %s", self._identity, error.strerror or error)
            else:
                log.error("%s: %s; what was there before is used", self._identity, error.strerror or error)
            return
        self.context = context
        log.info("listen.fleet lets appliances in by their certificates")

    def who(self, certificate: Mapping[str, Any] | None) -> str | None:
        """The appliance that a verified certificate is of; None: no appliance, or one whose certificate was revoked."""
        name = appliance_of(certificate)
        if name is None or certificate is None:
            return None
        began = ssl.cert_time_to_seconds(str(certificate["notBefore"]))
        return None if began < self._revoked.get(name, 0.0) else name


def names_of(cert: str) -> list[str]:
    """The host names of the first certificate in a PEM file, in lower case. Raises OSError and ValueError."""
    found = x509.load_pem_x509_certificate(Path(cert).read_bytes())
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def ends_at(cert: str) -> float:
    """When the first certificate in a PEM file ends, in seconds since 1970. Raises OSError and ValueError."""
    return x509.load_pem_x509_certificate(Path(cert).read_bytes()).not_valid_after_utc.timestamp()


def _film_context(settings: Settings, certificate: Certificate) -> ssl.SSLContext:
    context = _server_context(_VERSIONS[settings.tls.minimum])
    try:
        if os.stat(certificate.key).st_mode & stat.S_IROTH:
            raise SettingsError(
                f"certificate.key {certificate.key}: everybody on this machine can read it; allowed: mode 0600 or 0640"
                " (chmod o-r)"
            )
        context.load_cert_chain(certificate.cert, certificate.key)
        if ends_at(certificate.cert) < time.time():
            log.warning("certificate %s has ended; players will refuse it", certificate.cert)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        said = getattr(error, "strerror", None) or error
        raise SettingsError(f"certificate.cert {certificate.cert}, key {certificate.key}: {said}") from error
    return context


def _server_context(minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # One ticket for each connection: players open few at a time (RFC 8446 section 4.6.1 leaves it to us).
    context.num_tickets = 1
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _stamps(*paths: str) -> object:
    """What changes when the files do."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            at = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((at.st_mtime_ns, at.st_ino, at.st_size))
    return found
