"""Longest prefix match over what is announced, IPv4 and IPv6, while prefixes come and go.

Every match comes with its *scope*: the shortest prefix length around the address within which every address has the
same match. A resolver may keep an answer for all of that network and no more (RFC 7871 section 7.2.1), and so may we.
More-specifics below a match narrow its scope, and where nothing matches, whatever is announced nearby does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, MutableSequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Generic, NamedTuple, TypeVar

from pytricia import PyTricia

ValueT = TypeVar("ValueT")

Network = tuple[bytes, int]
"""Address in network order (4 or 16 bytes, the bits beyond the length zero), and prefix length."""

MOST_PREFIXES: Final = 2_000_000
"""Twice what is planned for: 1 M prefixes take 150 MB here."""
_CHUNK: Final = 1024
"""Keys in a piece of the sorted list: adding one moves 8 KiB at most."""
_AF_INET: Final = 2
_AF_INET6: Final = 10
"""Linux's numbers, as pytricia wants them; `socket` is not for modules that decide."""


class PrefixError(ValueError):
    """Not a prefix; the text says why."""


def network_of(text: str) -> Network:
    """ "192.0.2.0/24" or "2001:db8::/32" as a network. Raises PrefixError, also when bits beyond the length are set."""
    address, slash, digits = text.partition("/")
    if not slash or not (digits.isascii() and digits.isdigit()) or len(digits) > 3 or "%" in address:
        raise PrefixError(f"{text!r} is not a prefix such as 192.0.2.0/24 or 2001:db8::/32")
    length = int(digits)
    try:
        packed = IPv6Address(address).packed if ":" in address else IPv4Address(address).packed
    except ValueError as error:
        raise PrefixError(f"{text!r} is not a prefix: {error}") from error
    width = 8 * len(packed)
    if length > width:
        raise PrefixError(f"{text!r} is longer than /{width}")
    if int.from_bytes(packed) & ((1 << (width - length)) - 1):
        raise PrefixError(f"{text!r} has bits set beyond its length")
    return packed, length


def text_of(network: Network) -> str:
    packed, length = network
    if len(packed) == 4:
        return f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}/{length}"
    return f"{IPv6Address(packed)}/{length}"


class Found(NamedTuple, Generic[ValueT]):
    """What a look-up says. `value` and `network` are None where nothing matches; `scope` is right in any case."""

    value: ValueT | None
    network: Network | None
    scope: int


class PrefixTable(Generic[ValueT]):
    """Networks of both families, each with a value that is not None."""

    __slots__ = ("_size", "_v4", "_v6")

    def __init__(self) -> None:
        self._v4: _Family[ValueT] = _Family(PyTricia(32, _AF_INET, True), 32, _SortedKeys(array("Q")))
        self._v6: _Family[ValueT] = _Family(PyTricia(128, _AF_INET6, True), 128, _SortedKeys([]))

        # pytricia counts by walking through all of it.
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, network: Network, value: ValueT) -> None:
        if self.get(network) is None:
            self.add(network, value)
        else:
            self.change(network, value)

    def add(self, network: Network, value: ValueT) -> None:
        """One that is not there yet."""
        family = self._v4 if len(network[0]) == 4 else self._v6
        family.trie[network] = value
        family.keys.add(int.from_bytes(network[0]) << 8 | network[1])
        self._size += 1

    def change(self, network: Network, value: ValueT) -> None:
        """One that is there."""
        (self._v4 if len(network[0]) == 4 else self._v6).trie[network] = value

    def get(self, network: Network) -> ValueT | None:
        """The value of exactly this network."""
        trie = (self._v4 if len(network[0]) == 4 else self._v6).trie
        # A bare `get` would be content with a shorter prefix.
        return trie.get(network) if trie.has_key(network) else None

    def remove(self, network: Network) -> None:
        """Raises KeyError if it is not there."""
        family = self._v4 if len(network[0]) == 4 else self._v6
        family.trie.delete(network)
        family.keys.remove(int.from_bytes(network[0]) << 8 | network[1])
        self._size -= 1

    def find(self, address: bytes) -> Found[ValueT]:
        """The longest match of an address of 4 or 16 bytes."""
        family = self._v4 if len(address) == 4 else self._v6
        value: ValueT | None = family.trie.get(address)
        number = int.from_bytes(address)
        width = family.width
        network: Network | None = None
        scope = 0
        # Of all that is announced, these two lie nearest. If the one before holds the address, it is the match.
        before, after = family.keys.around(number << 8 | 255)
        if before >= 0:
            first = before >> 8
            length = before & 255
            apart = (first ^ number).bit_length()
            if apart <= width - length:
                network = first.to_bytes(width >> 3), length
            else:
                scope = width - apart + 1
        if after >= 0:
            apart = ((after >> 8) ^ number).bit_length()
            if scope <= width - apart:
                scope = width - apart + 1
        if value is not None:
            if network is None:
                network = family.trie.get_key(address)
            scope = max(scope, network[1])
        return Found(value, network, scope)

    def covers(self, network: Network) -> ValueT | None:
        """The value of the longest entry that holds all of `network`."""
        value: ValueT | None = (self._v4 if len(network[0]) == 4 else self._v6).trie.get(network)
        return value


class _Family(NamedTuple, Generic[ValueT]):
    trie: PyTricia
    width: int
    keys: _SortedKeys


class _SortedKeys:
    """Numbers in order, in pieces, so that adding one costs the same however many there are."""

    __slots__ = ("_empty", "_floors", "_pieces")

    def __init__(self, empty: MutableSequence[int]) -> None:
        """`empty` is the kind of sequence to keep them in."""
        self._empty = empty
        self._pieces: list[MutableSequence[int]] = [empty[:]]
        self._floors = [0]
        """Piece i holds what is >= floor i and < floor i + 1."""

    def add(self, key: int) -> None:
        place = bisect_right(self._floors, key) - 1
        piece = self._pieces[place]
        insort(piece, key)
        if len(piece) > _CHUNK:
            upper = piece[_CHUNK // 2 :]
            del piece[_CHUNK // 2 :]
            self._pieces.insert(place + 1, upper)
            self._floors.insert(place + 1, upper[0])

    def remove(self, key: int) -> None:
        """It must be there."""
        place = bisect_right(self._floors, key) - 1
        piece = self._pieces[place]
        del piece[bisect_left(piece, key)]
        if not piece and len(self._pieces) > 1:
            del self._pieces[place]
            # What the piece stood for falls to the one below; the lowest floor is always 0.
            del self._floors[max(place, 1)]

    def around(self, point: int) -> tuple[int, int]:
        """The greatest key <= point, and the least one > point; -1 where there is none."""
        pieces = self._pieces
        place = bisect_right(self._floors, point) - 1
        piece = pieces[place]
        index = bisect_right(piece, point)
        before = after = -1
        if index:
            before = piece[index - 1]
        elif place:
            before = pieces[place - 1][-1]
        if index < len(piece):
            after = piece[index]
        elif place + 1 < len(pieces):
            after = pieces[place + 1][0]
        return before, after


class Source(NamedTuple):
    """Who says that a site announces a prefix: the inventory (no appliance), or an appliance that learned it."""

    site: str
    appliance: str = ""


class Announcers:
    """Those who announce a prefix. One object for each set of them, however many prefixes it has."""

    __slots__ = ("prefixes", "sites", "sources")

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self.sources = sources
        """In order."""
        self.sites = tuple(sorted({source.site for source in sources}))
        self.prefixes = 0


class Change(NamedTuple):
    """What a new set of one source changed."""

    came: int = 0
    gone: int = 0
    refused: int = 0
    """There was no room for them."""


class Announced:
    """Which sites announce which prefixes, by source: what one source withdraws, another may still announce."""

    def __init__(self, most: int = MOST_PREFIXES) -> None:
        self._most = most
        self._table: PrefixTable[Announcers] = PrefixTable()
        self._announcers: dict[tuple[Source, ...], Announcers] = {}
        self._said: dict[Source, tuple[bytes, bytes]] = {}
        """What each source announces, packed: a set of tuples would be twenty times as large."""
        self.generation = 0
        """Grows whenever some address may have another answer."""

    def __len__(self) -> int:
        return len(self._table)

    @property
    def sources(self) -> Collection[Source]:
        return self._said.keys()

    def of_one_appliance(self) -> Iterator[tuple[Source, int]]:
        """Appliances that alone announce some prefixes, and how many: without them these would be gone."""
        # As many sets as there are ways to announce: far fewer than prefixes.
        for each in self._announcers.values():
            if len(each.sources) == 1 and each.sources[0].appliance:
                yield each.sources[0], each.prefixes

    def find(self, address: bytes) -> Found[Announcers]:
        return self._table.find(address)

    def said_by(self, source: Source) -> Iterator[Network]:
        """What this source announces now."""
        v4, v6 = self._said.get(source, (b"", b""))
        yield from _unpacked(v4, 4)
        yield from _unpacked(v6, 16)

    def replace(self, source: Source, networks: Iterable[Network]) -> Change:
        """From now on `source` announces these, and nothing else; none at all forgets it."""
        new = set(networks)
        old = set(self.said_by(source))
        gone = old - new
        came = refused = 0
        changed = False
        for network in gone:
            changed |= self._withdraw(network, source)
        for network in sorted(new - old):
            known = self._table.get(network)
            if known is None and len(self._table) >= self._most:
                new.remove(network)
                refused += 1
                continue
            changed |= self._announce(network, known, source)
            came += 1
        if came or gone:
            self._keep(source, new)
        self.generation += changed
        return Change(came, len(gone), refused)

    def _keep(self, source: Source, networks: set[Network]) -> None:
        if not networks:
            self._said.pop(source, None)
            return
        self._said[source] = (_packed(networks, 4), _packed(networks, 16))

    def _announce(self, network: Network, known: Announcers | None, source: Source) -> bool:
        """Whether the sites are others now."""
        if known is None:
            self._table.add(network, self._shared((source,)))
            return True
        after = self._shared(tuple(sorted((*known.sources, source))))
        self._table.change(network, after)
        self._release(known)
        return after.sites != known.sites

    def _withdraw(self, network: Network, source: Source) -> bool:
        """Whether the sites are others now."""
        known = self._table.get(network)
        assert known is not None
        left = tuple(other for other in known.sources if other != source)
        if left:
            after = self._shared(left)
            self._table.change(network, after)
            changed = after.sites != known.sites
        else:
            self._table.remove(network)
            changed = True
        self._release(known)
        return changed

    def _shared(self, sources: tuple[Source, ...]) -> Announcers:
        announcers = self._announcers.get(sources)
        if announcers is None:
            announcers = self._announcers[sources] = Announcers(sources)
        announcers.prefixes += 1
        return announcers

    def _release(self, announcers: Announcers) -> None:
        announcers.prefixes -= 1
        if not announcers.prefixes:
            del self._announcers[announcers.sources]


def _packed(networks: Iterable[Network], width: int) -> bytes:
    return b"".join(packed + bytes((length,)) for packed, length in networks if len(packed) == width)


def _unpacked(blob: bytes, width: int) -> Iterator[Network]:
    for start in range(0, len(blob), width + 1):
        yield blob[start : start + width], blob[start + width]
