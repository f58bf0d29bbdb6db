"""Plans in the bucket: made, looked at, compared, applied. Each of these is a step of its own.

    fill/plans/<night>/<version>/begun.json                 written first: this version is somebody's
    fill/plans/<night>/<version>/orders/<appliance>.json    signed already, so that applying needs no key
    fill/plans/<night>/<version>/promised.json              `Promised`: what appliances hold by pledge, in one piece
    fill/plans/<night>/<version>/report.json, report.txt, plots
    fill/plans/<night>/<version>/plan.json                  `Record`, written last: a plan is there when this is
    fill/applied.json                                       `Applied`

To apply a plan is to copy its orders to where agents look (wire/orders.py). It can be broken off anywhere and done
again; an agent never sees half an order, and of two orders it takes the later one.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from pyroaring import BitMap

from fill.bucket import AT_ONCE, Entry
from fill.errors import InputError, SomebodyElse
from wire.codec import WireError, decode, encode
from wire.orders import (
    MOST_ORDER_BYTES,
    FillOrder,
    Night,
    Progress,
    Signed,
    order_key,
    progress_key,
    signed,
    urgent_prefix,
)

PLANS: Final = "fill/plans/"
APPLIED: Final = "fill/applied.json"
_NIGHT: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_RECORD_BYTES: Final = 16 * 1024 * 1024
_MOST_PROMISED_BYTES: Final = 1024 * 1024 * 1024
_MOST_REPORT_BYTES: Final = 256 * 1024 * 1024
_MOST_PROGRESS_BYTES: Final = 1024 * 1024

StructT = TypeVar("StructT", bound=Struct)
Reached = Callable[[int, int], None]


class Store(Protocol):
    """Where plans lie (fill/bucket.py)."""

    def entries(self, prefix: str) -> Iterable[Entry]: ...
    def folders(self, prefix: str) -> list[str]: ...
    def read(self, key: str, most_bytes: int) -> bytes | None: ...
    def write(self, key: str, body: bytes, kind: str = ..., *, is_new: bool = ...) -> None: ...
    def copy(self, key: str, to: str) -> None: ...


class Name(Struct, frozen=True, order=True):
    """Which plan."""

    night: str
    version: int

    def __str__(self) -> str:
        return f"{self.night} version {self.version}"

    @property
    def prefix(self) -> str:
        return f"{PLANS}{self.night}/{self.version}/"


class Begun(Struct, frozen=True, kw_only=True):
    """Somebody makes this plan."""

    at: float


class Record(Struct, frozen=True, kw_only=True):
    """A plan that is whole."""

    night: Night
    version: int
    made_at: float
    catalogue: str
    orders: dict[str, str]
    """SHA-256 of the signed order, by appliance."""
    bring_bytes: int
    bring_renditions: int

    @property
    def name(self) -> Name:
        return Name(self.night, self.version)


class Promised(Struct, frozen=True, kw_only=True):
    """What a plan has appliances hold by pledge."""

    appliances: dict[str, bytes]
    """By appliance, the numbers of renditions: portable roaring bitmaps."""


class Applied(Struct, frozen=True, kw_only=True):
    """Which plan agents work on."""

    night: Night
    version: int
    at: float
    who: str

    @property
    def name(self) -> Name:
        return Name(self.night, self.version)


class Plans:
    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self) -> list[Name]:
        """All that are whole or under way, the earliest first."""
        found = []
        for night in self._store.folders(PLANS):
            if _NIGHT.fullmatch(night):
                versions = self._store.folders(f"{PLANS}{night}/")
                found += [Name(night, int(version)) for version in versions if version.isdecimal()]
        return sorted(found)

    def begin(self, night: str, now: float) -> Name:
        """A version that nobody else has: two planners at once make two plans. Raises `BucketError`."""
        while True:
            versions = self._store.folders(f"{PLANS}{night}/")
            name = Name(night, 1 + max((int(version) for version in versions if version.isdecimal()), default=0))
            try:
                self._store.write(f"{name.prefix}begun.json", encode(Begun(at=now)), is_new=True)
            except SomebodyElse:
                continue
            return name

    def record(self, name: Name) -> Record:
        """Raises `InputError` if there is no such plan, or if it was never finished."""
        record = self._message(f"{name.prefix}plan.json", Record, _MOST_RECORD_BYTES)
        if record is None:
            raise InputError(f"there is no plan {name}, or it was broken off while it was written")
        return record

    def latest(self) -> Record | None:
        """The one of the latest night, and of its versions the greatest, that is whole."""
        for name in reversed(self.names()):
            record = self._message(f"{name.prefix}plan.json", Record, _MOST_RECORD_BYTES)
            if record is not None:
                return record
        return None

    def save(
        self,
        name: Name,
        orders: Iterable[FillOrder],
        files: Mapping[str, bytes],
        promised: dict[str, bytes],
        key: Ed25519PrivateKey,
        kid: str,
        now: float,
        reached: Reached = lambda _done, _of: None,
    ) -> Record:
        """Sign and write it under a name that `begin` gave."""
        self._write_all({name.prefix + part: body for part, body in files.items()}, lambda *_: None)
        self._store.write(f"{name.prefix}promised.json", encode(Promised(appliances=promised)))
        digests: dict[str, str] = {}
        catalogue, moved, renditions = "", 0, 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            # As many at once as there are threads: all orders of a large fleet don't fit into memory.
            for some in _in_parts(orders, AT_ONCE):
                bodies = {f"{name.prefix}orders/{order.appliance}.json": signed(order, key, kid) for order in some}
                for order, body in zip(some, bodies.values(), strict=True):
                    digests[order.appliance] = hashlib.sha256(body).hexdigest()
                    catalogue = order.catalogue
                    moved += sum(bring.size_bytes for bring in order.bring)
                    renditions += len(order.bring)
                for _ in pool.map(lambda item: self._store.write(item[0], item[1], _kind_of(item[0])), bodies.items()):
                    pass
                reached(len(digests), len(promised))
        record = Record(
            night=name.night,
            version=name.version,
            made_at=now,
            catalogue=catalogue,
            orders=dict(sorted(digests.items())),
            bring_bytes=moved,
            bring_renditions=renditions,
        )
        self._store.write(f"{name.prefix}plan.json", encode(record), is_new=True)
        return record

    def order(self, record: Record, appliance: str) -> FillOrder:
        """An order as it was made. Raises `InputError`."""
        body = self._order_bytes(record, appliance)
        try:
            return decode(decode(body, Signed).payload, FillOrder)
        except WireError as error:
            raise InputError(f"plan {record.name}: the order for {appliance}: {error}") from error

    def file(self, name: Name, part: str) -> bytes | None:
        """What else lies beside a plan, such as report.txt."""
        return self._store.read(name.prefix + part, _MOST_REPORT_BYTES)

    def promised_by(self, name: Name) -> dict[str, BitMap]:
        """What a plan has appliances hold by pledge: numbers of renditions. Raises `InputError`."""
        key = f"{name.prefix}promised.json"
        promised = self._message(key, Promised, _MOST_PROMISED_BYTES)
        if promised is None:
            raise InputError(f"plan {name} does not say what it has appliances hold: {key} is not there")
        try:
            return {appliance: BitMap.deserialize(numbers) for appliance, numbers in promised.appliances.items()}
        except ValueError as error:
            raise InputError(f"{key}: {error}") from error

    def promised(self, applied: Applied | None) -> dict[str, BitMap]:
        """As `promised_by`; nothing if no plan was applied yet."""
        return {} if applied is None else self.promised_by(applied.name)

    # --- Applying ---

    def applied(self) -> Applied | None:
        return self._message(APPLIED, Applied, _MOST_RECORD_BYTES)

    def apply(
        self, record: Record, who: str, now: float, *, back: bool = False, reached: Reached = lambda *_: None
    ) -> None:
        """Have agents work on this plan. Raises `InputError` for one that is before the applied one, unless `back`.

        Agents take no order that is before the one they have: going back is for a plan that was not begun yet.
        """
        before = self.applied()
        if before is not None and record.name < before.name and not back:
            raise InputError(
                f"plan {before.name} is applied, which is later than {record.name}; --back applies it all the same"
            )
        with ThreadPoolExecutor(AT_ONCE) as pool:
            # All are looked at before the first is copied: a plan is applied whole, or not at all.
            for _ in pool.map(lambda appliance: len(self._order_bytes(record, appliance)), record.orders):
                pass
            copies = pool.map(
                lambda appliance: self._store.copy(_place(record, appliance), order_key(appliance)), record.orders
            )
            for done, _ in enumerate(copies, start=1):
                reached(done, len(record.orders))
        applied = Applied(night=record.night, version=record.version, at=now, who=who)
        self._store.write(APPLIED, encode(applied))

    def urge(self, order: FillOrder, key: Ed25519PrivateKey, kid: str) -> str:
        """Have an agent work on this at once. Where it was written."""
        place = f"{urgent_prefix(order.appliance)}{int(order.issued_at * 1000):013}.json"
        self._store.write(place, signed(order, key, kid), is_new=True)
        return place

    def progress(self, appliance: str) -> Progress | None:
        """What an agent said last; None if it never did."""
        return self._message(progress_key(appliance), Progress, _MOST_PROGRESS_BYTES)

    # --- Parts ---

    def _order_bytes(self, record: Record, appliance: str) -> bytes:
        if appliance not in record.orders:
            raise InputError(f"plan {record.name} has no order for {appliance!r}; it has {len(record.orders)} others")
        body = self._store.read(_place(record, appliance), MOST_ORDER_BYTES)
        if body is None or hashlib.sha256(body).hexdigest() != record.orders[appliance]:
            raise InputError(
                f"plan {record.name}: the order for {appliance} is not the one that was written: plan anew"
            )
        return body

    def _message(self, key: str, kind: type[StructT], most_bytes: int) -> StructT | None:
        body = self._store.read(key, most_bytes)
        if body is None:
            return None
        try:
            return decode(body, kind)
        except WireError as error:
            raise InputError(f"{key}: {error}") from error

    def _write_all(self, bodies: Mapping[str, bytes], reached: Reached) -> None:
        done = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda item: self._store.write(item[0], item[1], _kind_of(item[0])), bodies.items()):
                done += 1
                reached(done, len(bodies))


def _in_parts(items: Iterable[FillOrder], size: int) -> Iterator[list[FillOrder]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part


def _place(record: Record, appliance: str) -> str:
    return f"{record.name.prefix}orders/{appliance}.json"


def _kind_of(key: str) -> str:
    return {"json": "application/json", "txt": "text/plain; charset=utf-8", "png": "image/png"}[key.rpartition(".")[2]]
