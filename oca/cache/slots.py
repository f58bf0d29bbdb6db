"""Slots: small dense numbers for extents, and what is known of each without asking the index. 30 bytes a slot."""

from __future__ import annotations

from array import array
from typing import Final

from oca.cache.keys import ExtentKey

_KEY: Final = 28
_FREE: Final = 0xFFFF


class Slots:
    """Gives numbers, takes them back, and knows the key and the device of each."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._devices = array("H")
        self._free = array("I")

    def __len__(self) -> int:
        """How many slots are taken."""
        return len(self._devices) - len(self._free)

    def take(self, key: ExtentKey, device: int) -> int:
        if self._free:
            slot = self._free.pop()
            self._set(slot, key, device)
            return slot
        self._keys += key
        self._devices.append(device)
        return len(self._devices) - 1

    def restore(self, slot: int, key: ExtentKey, device: int) -> bool:
        """Take back a number that the index holds. False if another extent has it already."""
        missing = slot + 1 - len(self._devices)
        if missing > 0:
            first = len(self._devices)
            self._keys += bytes(_KEY * missing)
            self._devices.extend([_FREE] * missing)
            # The numbers jumped over are free until their own extents turn up: `settle` counts what stayed free.
            self._free.extend(range(first, slot))
        if self._devices[slot] != _FREE:
            return False
        self._set(slot, key, device)
        return True

    def settle(self) -> None:
        """After the last `restore`: numbers that nobody claimed are free."""
        self._free = array("I", (slot for slot, device in enumerate(self._devices) if device == _FREE))

    def key_of(self, slot: int) -> ExtentKey | None:
        """None if the slot is free or was never given."""
        if slot >= len(self._devices) or self._devices[slot] == _FREE:
            return None
        return bytes(self._keys[_KEY * slot : _KEY * (slot + 1)])

    def device_of(self, slot: int) -> int:
        return self._devices[slot]

    def give_back(self, slot: int) -> None:
        if self._devices[slot] != _FREE:
            self._devices[slot] = _FREE
            self._free.append(slot)

    def _set(self, slot: int, key: ExtentKey, device: int) -> None:
        self._keys[_KEY * slot : _KEY * (slot + 1)] = key
        self._devices[slot] = device
