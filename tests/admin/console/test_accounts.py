"""Roles, and passwords that are kept as hashes only."""

import asyncio

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from admin.console.accounts import Account, Accounts, Role, is_hash
from tests.doubles.console import PASSWORD, password_hash


@pytest.mark.parametrize(
    ("role", "wanted", "may"),
    [
        (Role.VIEWER, Role.VIEWER, True),
        (Role.VIEWER, Role.OPERATOR, False),
        (Role.OPERATOR, Role.VIEWER, True),
        (Role.OPERATOR, Role.ADMIN, False),
        (Role.ADMIN, Role.OPERATOR, True),
    ],
)
def test_a_role_may_what_those_below_it_may(role, wanted, may):
    assert role.may(wanted) is may


def test_passwords_are_hashed_with_argon2id():
    assert password_hash().startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert PASSWORD not in password_hash()
    assert is_hash(password_hash())


@pytest.mark.parametrize("text", ["", "secret", "$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g", "$2b$12$x"])
def test_nothing_else_is_taken_for_a_hash(text):
    assert not is_hash(text)


@pytest.mark.parametrize(("plain", "greedy"), [("m=65536", "m=4194304"), ("t=3", "t=0"), ("p=1", "p=0")])
def test_a_hash_that_would_take_more_than_a_gib_or_makes_no_sense_is_refused(plain, greedy):
    assert plain in password_hash()
    assert not is_hash(password_hash().replace(plain, greedy))


@pytest.mark.parametrize(
    ("name", "password", "is_known"),
    [("ada", PASSWORD, True), ("ada", PASSWORD + "x", False), ("ada", "", False), ("eve", PASSWORD, False)],
)
def test_only_the_right_name_with_the_right_password_is_let_in(name, password, is_known):
    async def verified():
        account = Account("ada", Role.ADMIN, password_hash())
        return await Accounts((account,)).verified(name, password)

    found = asyncio.run(verified())
    assert (found is not None and found.name == "ada") is is_known


def test_hashes_of_several_lanes_are_verified_whoever_asks_at_once():
    """As other tools make them. Two at once would wait for each other's threads in OpenSSL, for ever."""
    kdf = Argon2id(salt=bytes(16), length=32, iterations=1, lanes=4, memory_cost=1024)
    account = Account("ada", Role.ADMIN, kdf.derive_phc_encoded(PASSWORD.encode()))

    async def verified():
        accounts = (Accounts((account,)), Accounts((account,)))
        return await asyncio.gather(*(accounts[number % 2].verified("ada", PASSWORD) for number in range(40)))

    assert asyncio.run(verified()) == [account] * 40
