"""What exabgp's JSON lines add up to: which routes each BGP session has announced and not withdrawn.

Pure: lines in, routes out. The format is that of exabgp 4 and 5 (`encoder json`, `receive { parsed; update; }` and
`neighbor-changes`). A session that goes down takes all its routes with it, and so does the end of exabgp itself.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from wire.prefixes import AS_SET, LearnedPrefix

_FAMILIES: Final = ("ipv4 unicast", "ipv6 unicast")
_LEAVES: Final = frozenset({"up", "down"})
"""States of a session in which nothing from before holds: a new one tells everything anew."""

Session = tuple[str, str]
"""Our address and the peer's."""


class NotUnderstood(ValueError):
    """A line that is not one of exabgp's; what it wanted to say is lost."""


class _Prefix(Struct, frozen=True, rename={"path": "path-information"}):
    nlri: str
    path: str = ""
    """Tells several routes to a prefix apart, where the session carries them (RFC 7911)."""


class _Attributes(Struct, frozen=True, rename="kebab"):
    as_path: Any = ()
    as_set: tuple[int, ...] = ()
    community: tuple[Any, ...] = ()
    large_community: tuple[Any, ...] = ()


class _Update(Struct, frozen=True):
    attribute: _Attributes = field(default_factory=_Attributes)
    announce: dict[str, Any] = {}
    withdraw: dict[str, Any] = {}


class _Message(Struct, frozen=True):
    update: _Update | None = None


class _Addresses(Struct, frozen=True):
    local: str
    peer: str


class _Neighbor(Struct, frozen=True):
    address: _Addresses
    state: str = ""
    direction: str = "receive"
    message: _Message = field(default_factory=_Message)


class _Line(Struct, frozen=True):
    type: str
    neighbor: _Neighbor | None = None
    notification: Any = None


_DECODER: Final = msgspec.json.Decoder(_Line)


class Rib:
    """The routes of all sessions of one exabgp."""

    def __init__(self, most: int) -> None:
        """`most` routes in all. A session that brings more is not heard until it begins anew, as a router would
        close it: what has leaked a whole table can't be trusted in parts.
        """
        self._most = most
        self._sessions: dict[Session, dict[tuple[str, str], LearnedPrefix]] = {}
        self._overflowed: set[Session] = set()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def overflowed(self) -> tuple[str, ...]:
        """Peers of sessions that are not heard."""
        return tuple(sorted(peer for _, peer in self._overflowed))

    def routes(self) -> tuple[LearnedPrefix, ...]:
        """Each different route once, in an order that does not depend on how it came about."""
        every = {route for session in self._sessions.values() for route in session.values()}
        return tuple(sorted(every, key=lambda r: (r.prefix, r.as_path or (), r.communities or ())))

    def hear(self, line: bytes) -> bool:
        """Whether the line may have changed the routes. Raises NotUnderstood."""
        try:
            said = _DECODER.decode(line)
            if said.neighbor is None:
                return said.notification == "shutdown" and self._forget_all()
            session = (said.neighbor.address.local, said.neighbor.address.peer)
            if said.neighbor.state:
                return said.neighbor.state in _LEAVES and self._forget(session)
            update = said.neighbor.message.update
            if update is None or said.neighbor.direction != "receive" or session in self._overflowed:
                return False
            return self._apply(session, update)
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
            raise NotUnderstood(f"not a line of exabgp's: {error}") from error

    def _apply(self, session: Session, update: _Update) -> bool:
        """All of an update or, if it is not understood, nothing."""
        gone = [
            (prefix.nlri, prefix.path)
            for family in _FAMILIES
            for prefix in msgspec.convert(update.withdraw.get(family, ()), tuple[_Prefix, ...])
        ]
        path = _path_of(update.attribute)
        communities = _communities_of(update.attribute)
        came = {
            (prefix.nlri, prefix.path): LearnedPrefix(prefix.nlri, path, communities)
            for family in _FAMILIES
            # By next hop; IPv6 has two of them for each prefix.
            for prefixes in update.announce.get(family, {}).values()
            for prefix in msgspec.convert(prefixes, tuple[_Prefix, ...])
        }
        routes = self._sessions.setdefault(session, {})
        before = len(routes)
        for key in gone:
            routes.pop(key, None)
        routes.update(came)
        self._size += len(routes) - before
        if self._size > self._most:
            self._forget(session)
            self._overflowed.add(session)
        return bool(gone or came)

    def _forget(self, session: Session) -> bool:
        self._overflowed.discard(session)
        routes = self._sessions.pop(session, {})
        self._size -= len(routes)
        return bool(routes)

    def _forget_all(self) -> bool:
        had = bool(self._size)
        self._sessions.clear()
        self._overflowed.clear()
        self._size = 0
        return had


def _path_of(attributes: _Attributes) -> tuple[int, ...]:
    """exabgp 4 gives a list, and the set at its end beside it; 5 gives the parts by number, each with its kind."""
    if not isinstance(attributes.as_path, dict):
        path = msgspec.convert(attributes.as_path, tuple[int, ...])
        return (*path, AS_SET) if attributes.as_set else path
    path = ()
    for number in sorted(attributes.as_path, key=int):
        part = attributes.as_path[number]
        # Parts of a confederation are inside the neighbour's own network (RFC 5065).
        if part["element"] == "as-sequence":
            path += msgspec.convert(part["value"], tuple[int, ...])
        elif part["element"] == "as-set":
            path += (AS_SET,)
    return path


def _communities_of(attributes: _Attributes) -> tuple[str, ...]:
    return tuple(
        sorted(
            part if isinstance(part, str) else ":".join(str(number) for number in part)
            for part in (*attributes.community, *attributes.large_community)
        )
    )
