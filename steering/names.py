"""Numbers made of names, the same in every process and release: what rendezvous hashing hashes."""

from hashlib import blake2b
from typing import Final

_MASK: Final = 2**64 - 1


def mixed(number: int) -> int:
    """splitmix64's finalizer: one to one, every bit depends on all."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def mixed_name(name: str) -> int:
    """64 well-mixed bits of a name, whatever its characters: paths from the network hold lone surrogates too."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
