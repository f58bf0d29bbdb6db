"""What is to be done of an order, and in which order. Pure: no clock, no disk, no socket.

Renditions are taken up with the most valuable first. One whose peer does not have it yet, or whose source does not
answer, is put off, and the others go on. What the order releases is given up only as far as what replaces it is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from wire.orders import Bring, FillOrder

_LONGEST: Final = 20
"""Times the first pause."""


class Failure(StrEnum):
    """Why a rendition is not brought tonight: the closed label set of `oca_fill_renditions_total`."""

    ABSENT = "absent"
    """The catalogue or the sources do not have it."""
    CHANGED = "changed"
    """It is not of the size that the catalogue says, or became another under way."""
    CHECKSUM = "checksum"
    NO_ROOM = "no_room"
    BUDGET = "budget"
    """The order's bytes are used up."""


class Route(Struct, frozen=True):
    """Whom to ask."""

    peers: tuple[str, ...] = ()
    only_peers: bool = False


class _Item(Struct):
    bring: Bring
    pause: float
    not_before: float = 0.0
    is_active: bool = False


class Work:
    """One order while it is worked on."""

    def __init__(
        self,
        order: FillOrder,
        done: Iterable[int],
        failed: Mapping[int, Failure],
        released: Iterable[str],
        began_at: float,
        peer_wait: float,
        pause: float,
    ) -> None:
        """`done`, `failed` and `released` are what a journal remembers of it. `began_at` is the moment from which
        peers are waited for; `pause` is the first before something that was put off is tried again."""
        self.order = order
        self._urls = {peer.id: peer.url for peer in order.peers}
        self._began_at = began_at
        self._peer_wait = peer_wait
        self.done: set[int] = set(done)
        self.failed: dict[int, Failure] = dict(failed)
        over = self.done | self.failed.keys()
        self._pause = pause
        self._items = {bring.number: _Item(bring, pause) for bring in order.bring if bring.number not in over}
        gone = set(released)
        self._release = [folder for folder in order.release if folder not in gone]
        self._credit = 0
        self.spent_bytes = 0
        """That were fetched for it."""
        self.source_bytes: dict[str, int] = {}
        self.partial_bytes: dict[int, int] = {}
        """Of renditions under way."""

    # --- What is there to do ---

    @property
    def is_over(self) -> bool:
        """Nothing is left, and nothing is under way."""
        return not self._items

    @property
    def order_bytes(self) -> int:
        return sum(bring.size_bytes for bring in self.order.bring)

    @property
    def done_bytes(self) -> int:
        whole = sum(bring.size_bytes for bring in self.order.bring if bring.number in self.done)
        return whole + sum(self.partial_bytes.values())

    @property
    def left_bytes(self) -> int:
        """That may still come."""
        return sum(item.bring.size_bytes - self.partial_bytes.get(number, 0) for number, item in self._items.items())

    def pick(self, now: float) -> Bring | None:
        """The most valuable that can be taken up now; it is under way then."""
        for item in self._items.values():
            if not item.is_active and item.not_before <= now:
                item.is_active = True
                return item.bring
        return None

    def next_at(self) -> float | None:
        """When something that was put off is due; None if nothing is."""
        waiting = [item.not_before for item in self._items.values() if not item.is_active]
        return min(waiting, default=None)

    def route(self, bring: Bring, now: float) -> Route:
        """Its peers alone until they were waited for long enough; then the ladder as well."""
        peers = tuple(self._urls[source] for source in bring.sources if source in self._urls)
        return Route(peers, bool(peers) and now - self._began_at < self._peer_wait)

    def may_spend(self, bring: Bring) -> bool:
        """Whether the order's bytes allow for it. What is held already costs nothing, so the last one may be asked for
        and turn out to cost more than was left."""
        del bring
        return self.spent_bytes < max(1, self.order.budget_bytes)

    # --- What became of it ---

    def came(self, bring: Bring, count: int, sources: Mapping[str, int]) -> None:
        """A span is here; `sources` says what of it was fetched, by kind of source."""
        self.partial_bytes[bring.number] = min(bring.size_bytes, self.partial_bytes.get(bring.number, 0) + count)
        for source, some in sources.items():
            self.source_bytes[source] = self.source_bytes.get(source, 0) + some
            self.spent_bytes += some

    def put_off(self, bring: Bring, now: float) -> float:
        """Returns for how long. Each time is longer than the one before."""
        item = self._items[bring.number]
        item.is_active = False
        item.not_before = now + item.pause
        pause, item.pause = item.pause, min(item.pause * 2, self._pause * _LONGEST)
        self.partial_bytes.pop(bring.number, None)
        return pause

    def dropped(self, bring: Bring) -> None:
        """It was broken off from outside, and may be taken up again at once."""
        item = self._items.get(bring.number)
        if item is not None:
            item.is_active = False
        self.partial_bytes.pop(bring.number, None)

    def finished(self, bring: Bring) -> None:
        """It is here, right, and pledged."""
        self.done.add(bring.number)
        del self._items[bring.number]
        self.partial_bytes.pop(bring.number, None)
        self._credit += bring.size_bytes

    def gave_up(self, bring: Bring, why: Failure) -> None:
        self.failed[bring.number] = why
        self._items.pop(bring.number, None)
        self.partial_bytes.pop(bring.number, None)

    # --- What goes for it ---

    def to_release(self) -> str | None:
        """The folder that may go next: as long as more came than went, and all that are left once all is here."""
        if not self._release or (self._credit <= 0 and not (self.is_over and not self.failed)):
            return None
        return self._release[0]

    def least_valuable(self) -> str | None:
        """What goes to make room for something that is here already, and could not be pledged."""
        return self._release[0] if self._release else None

    def released(self, folder: str, count: int) -> None:
        """It went, and held so many bytes."""
        self._release.remove(folder)
        self._credit -= count


def is_behind(left_bytes: int, seconds_left: float, cap: float, observed: float | None) -> bool:
    """Whether what is left can't come in time, at the cap or as fast as it came so far (None: not known yet)."""
    rate = cap if observed is None else min(cap, observed)
    return left_bytes > rate * max(0.0, seconds_left)
