"""Response rate limiting, as BIND does it: nobody is flooded with our answers, whoever pretends to be them.

One account for each network (/24, /56) and class of answers. A second brings `rate` answers of credit, and never more
than one second's worth is saved. Whoever goes on asking gets into debt, up to `window` seconds' worth, and is answered
again when the debt is paid by silence. Of what is not answered, every `slip`-th goes out empty with TC: a resolver
whose address is abused comes by TCP, where an address can't be forged. Any other gets a packet as small as the query.

Titles are not told apart: a flood of random names would only make accounts.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum, auto


class Class(bytes, Enum):
    """What kind of answer an account is for. The values are parts of keys."""

    ANSWER = b"a"
    DENIAL = b"d"
    """No such name."""
    REFUSAL = b"r"
    ERROR = b"e"


class Ruling(Enum):
    SEND = auto()
    SLIP = auto()
    DROP = auto()


class _Account:
    __slots__ = ("at", "credit", "limited")

    def __init__(self, credit: float, at: float) -> None:
        self.credit = credit
        self.at = at
        self.limited = 0


def network_of(address: bytes) -> bytes:
    """The /24 or /56 of a packed address. Their lengths differ, so the families do not meet."""
    return address[:3] if len(address) == 4 else address[:7]


class Limiter:
    """Accounts of who was answered how often, `most_accounts` at most."""

    def __init__(self, rate: int, window: int, slip: int, most_accounts: int, unlimited: Sequence[str] = ()) -> None:
        """`rate` answers a second (0: no limit), `window` in seconds, `unlimited` networks."""
        self._rate = float(rate)
        self._deepest = -float(rate) * window
        self._slip = slip
        self._most = most_accounts
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()
        self._unlimited = tuple(_bits(network) for network in unlimited)

    def __len__(self) -> int:
        return len(self._accounts)

    def rule(self, address: bytes, kind: Class, now: float) -> Ruling:
        """Charge one answer of this class to the packed `address`, and say whether it may go out."""
        if not self._rate:
            return Ruling.SEND
        key = network_of(address) + kind.value
        accounts = self._accounts
        account = accounts.get(key)
        if account is None:
            if len(accounts) >= self._most:
                accounts.popitem(last=False)
            accounts[key] = _Account(self._rate - 1, now)
            return Ruling.SEND
        accounts.move_to_end(key)
        # A clock that was set back brings no debt.
        credit = account.credit + max(now - account.at, 0.0) * self._rate
        account.at = now
        account.credit = max(min(credit, self._rate) - 1, self._deepest)
        if account.credit >= 0 or self._is_unlimited(address):
            return Ruling.SEND
        account.limited += 1
        if self._slip and account.limited % self._slip == 0:
            return Ruling.SLIP
        return Ruling.DROP

    def _is_unlimited(self, address: bytes) -> bool:
        """Only asked of those who are over the limit, so a walk through the list costs nobody else anything."""
        version = 4 if len(address) == 4 else 6
        number = int.from_bytes(address, "big")
        return any(version == family and number & mask == first for family, first, mask in self._unlimited)


def _bits(text: str) -> tuple[int, int, int]:
    """Version, first address and mask of a network, as numbers."""
    network = ipaddress.ip_network(text)
    return network.version, int(network.network_address), int(network.netmask)
