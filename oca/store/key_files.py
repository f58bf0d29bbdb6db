"""Files of keys: the public ones that tokens are verified with, and this box's own, which renews them.

A box has no key that anybody else trusts: its own private key never leaves it, and only it accepts what it signed. Who
steals it can watch from this box, and nothing more.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from oca.errors import KeysUnusable
from wire.codec import WireError
from wire.token import MAX_KEY_SET_BYTES, PublicKey, SigningKey, read_key_set, signing_key

OWN_KEY: Final = "renewal-key.pem"
"""In the state directory."""


def read_public_keys(path: str) -> dict[str, PublicKey]:
    """The keys of a JWKS file, by kid. Raises `KeysUnusable`, whose message names the file and what is wrong."""
    try:
        with Path(path).open("rb") as file:
            body = file.read(MAX_KEY_SET_BYTES + 1)
        return read_key_set(body)
    except OSError as error:
        raise KeysUnusable(f"{path}: can't be read: {error.strerror}") from error
    except WireError as error:
        raise KeysUnusable(f"{path}: {error}") from error


def read_own_key(path: str) -> SigningKey:
    """This box's own key. Raises `KeysUnusable`."""
    try:
        pem = Path(path).read_bytes()
        return signing_key(pem, "own-" + sha256(pem).hexdigest()[:16])
    except OSError as error:
        raise KeysUnusable(f"{path}: can't be read: {error.strerror}") from error
    except WireError as error:
        raise KeysUnusable(f"{path}: {error}") from error


def make_own_key(path: str) -> None:
    """Make this box's own key, unless there is one. Raises `KeysUnusable`."""
    if Path(path).exists():
        return
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    new = f"{path}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            Path(new).unlink()
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        Path(new).rename(path)
    except OSError as error:
        raise KeysUnusable(f"{path}: can't be written: {error.strerror}") from error
