"""What the appliance proves itself with to steering: a token, a certificate. Read anew wherever it is used.

Looked at when the appliance starts, so that a mistake stops the start and not the reporting.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from typing import Final

from oca.errors import SettingsError
from oca.settings import Settings, Steering

_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 section 2.1."""
_MOST_BYTES: Final = 512
"""Steering reads no longer ones."""


def check_credentials(settings: Settings) -> None:
    """Raises `SettingsError` if what the settings name can't be used."""
    steering = settings.steering
    if steering is None:
        return
    if steering.token_file is not None:
        read_token(steering.token_file)
    tls_context(steering)


def read_token(path: str) -> str:
    """The bearer token in a file of its own. Raises `SettingsError` if it can't be used, or by everybody."""
    try:
        # Not waiting: it may be a pipe into which nobody writes.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            content = os.read(fd, _MOST_BYTES + 2)
        finally:
            os.close(fd)
    except OSError as error:
        raise SettingsError(f"steering.token_file {path}: can't be read: {error.strerror}") from error
    if mode & stat.S_IROTH:
        raise SettingsError(
            f"steering.token_file {path}: everybody on this machine can read it; allowed: mode 0600 or 0640 (chmod o-r)"
        )
    token = content.removesuffix(b"\n")
    if len(token) > _MOST_BYTES or _TOKEN.fullmatch(token) is None:
        raise SettingsError(
            f"steering.token_file {path}: holds no token; allowed: one line of at most {_MOST_BYTES} letters, digits "
            "and -._~+/="
        )
    return token.decode()


def tls_context(steering: Steering) -> ssl.SSLContext:
    """How steering is spoken to over https. Raises `SettingsError` if a file of certificates can't be used."""
    try:
        context = ssl.create_default_context(cafile=steering.ca_file)
    except OSError as error:  # ssl.SSLError is one.
        raise SettingsError(f"steering.ca_file {steering.ca_file}: {error.strerror or error}") from error
    if steering.client_cert is not None:
        try:
            context.load_cert_chain(steering.client_cert, steering.client_key)
        except OSError as error:
            raise SettingsError(
                f"steering.client_cert {steering.client_cert}, client_key {steering.client_key}: "
                f"{error.strerror or error}"
            ) from error
    return context
