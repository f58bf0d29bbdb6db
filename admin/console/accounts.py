"""Who may do what: roles, and local accounts with hashed passwords.

Passwords are hashed with Argon2id, with the parameters of RFC 9106's second recommendation (64 MiB, three passes), and
verified in threads, two at a time: each takes a core for some 50 ms and 64 MiB.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from functools import cache
from typing import Annotated, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY
from msgspec import Meta, Struct

MOST_PASSWORD: Final = 1024
LEAST_PASSWORD: Final = 12
_AT_ONCE: Final = 2
_HASHER: Final = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


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
        self._turn = asyncio.Semaphore(_AT_ONCE)

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
    return _HASHER.hash(password)


def is_hash(text: str) -> bool:
    try:
        _HASHER.check_needs_rehash(text)
    except InvalidHashError:
        return False
    return text.startswith("$argon2id$")


def _fits(encoded: str, password: str) -> bool:
    try:
        return _HASHER.verify(encoded, password)
    except VerificationError:
        return False


@cache
def _nobody() -> str:
    return hashed("whoever asks for a name that is not there waits as long")
