"""Numbers made of names, the same in every process and release: what rendezvous hashing hashes."""

from typing import Final

_MASK: Final = 2**64 - 1


def mixed(number: int) -> int:
    """splitmix64's finalizer: one to one, every bit depends on all."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def mixed_name(name: str) -> int:
    """64 well-mixed bits of a name: FNV-1a, then mixed."""
    number = 0xCBF29CE484222325
    for byte in name.encode():
        number = ((number ^ byte) * 0x100000001B3) & _MASK
    return mixed(number)
