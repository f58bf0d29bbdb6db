"""Who may do what: roles, and local accounts with hashed passwords.

Passwords are hashed with Argon2id (RFC 9106): 64 MiB and three passes of one lane, three times what OWASP asks for at
least. They are verified in a thread, one after the other: each takes some 100 ms of a processor.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from enum import StrEnum
from functools import cache
from typing import Annotated, Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Meta, Struct

MOST_PASSWORD: Final = 1024
LEAST_PASSWORD: Final = 12
_MEMORY_KIB, _PASSES, _LANES, _SALT, _HASH = 65536, 3, 1, 16, 32
_BASE64: Final = "[A-Za-z0-9+/]"
_ENCODED: Final = re.compile(
    rf"\$argon2id\$v=19\$m=(\d{{1,7}}),t=(\d{{1,2}}),p=(\d{{1,2}})\${_BASE64}{{11,86}}\${_BASE64}{{22,86}}"
)
_ONE: Final = threading.Lock()
"""Two hashes of several lanes at once wait for each other's threads in OpenSSL, for ever."""
_MOST_MEMORY_KIB: Final = 1024 * 1024


class Role(StrEnum):
    VIEWER = "viewer"
    """Sees everything."""
    OPERATOR = "operator"
    """Acts on the fleet as well: drains, plans, purges, acknowledges."""
    ADMIN = "admin"
    """Ends others' sessions as well."""

    def may(self, wanted: Role) -> bool:
        return _ORDER.index(self) >= _ORDER.index(wanted)


_ORDER: Final = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


class Account(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    role: Role
    password: Annotated[str, Meta(max_length=500)]
    """Argon2's encoded hash, which `oca-admin password` prints."""


class Accounts:
    """Those of the settings."""

    def __init__(self, accounts: tuple[Account, ...]) -> None:
        self._known = {account.name: account for account in accounts}
        self._turn = asyncio.Semaphore(1)

    def __getitem__(self, name: str) -> Account | None:
        return self._known.get(name)

    async def verified(self, name: str, password: str) -> Account | None:
        """None for a wrong name as for a wrong password, after the same time."""
        account = self._known.get(name)
        encoded = account.password if account is not None else _nobody()
        async with self._turn:
            fits = await asyncio.to_thread(_fits, encoded, password[:MOST_PASSWORD])
        return account if fits and account is not None else None


def hashed(password: str) -> str:
    """In the PHC string format."""
    kdf = Argon2id(salt=os.urandom(_SALT), length=_HASH, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)
    with _ONE:
        return kdf.derive_phc_encoded(password.encode())


def is_hash(text: str) -> bool:
    """Whether it is one by Argon2id that can be verified with a GiB."""
    found = _ENCODED.fullmatch(text)
    return found is not None and 8 <= int(found[1]) <= _MOST_MEMORY_KIB and int(found[2]) > 0 and int(found[3]) > 0


def _fits(encoded: str, password: str) -> bool:
    try:
        with _ONE:
            Argon2id.verify_phc_encoded(password.encode(errors="surrogateescape"), encoded)
    except InvalidKey:
        return False
    return True


@cache
def _nobody() -> str:
    return hashed("whoever asks for a name that is not there waits as long")
