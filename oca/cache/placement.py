"""Which device an extent belongs on: weighted rendezvous hashing, so that adding or losing one moves only its share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

_SPAN: Final = 2.0**64


def ranked_devices(key: bytes, weights: Mapping[int, float]) -> list[int]:
    """Device numbers, best first. A device wins a share of all keys in proportion to its weight.

    Score -w / ln(h) with h uniform in (0, 1): Schindelhauer and Schomaker, "Weighted distributed hash tables" (2005).
    """

    def score(number: int) -> float:
        digest = blake2b(key, digest_size=8, salt=number.to_bytes(8, "big")).digest()
        uniform = (int.from_bytes(digest, "big") + 0.5) / _SPAN
        return -weights[number] / math.log(uniform) if uniform < 1.0 else math.inf

    weighty = (number for number, weight in weights.items() if weight > 0)
    # Equal scores are as rare as equal hashes, or of weights too small to tell apart: then by number, not by chance.
    return sorted(weighty, key=lambda number: (-score(number), number))
