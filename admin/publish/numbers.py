"""Which number each rendition gets: dense, each given once, and kept over a publisher's death.

Numbers are claimed in one object that is only ever changed by conditional writes (the I/O is in publication.py). A
claim is keyed by the rendition's folder, which names its bytes, so claiming twice gives the same number.
"""

from collections.abc import Iterable, Mapping

import msgspec

from wire.catalog import RenditionNumbers


def claimed(
    numbers: RenditionNumbers, folders: Iterable[str], held: Mapping[str, int]
) -> tuple[RenditionNumbers, dict[str, int]]:
    """The document with a claim for each of these folders, and the number of each.

    `held` are numbers that the catalogue gives already; those need no claim.
    """
    given: dict[str, int] = {}
    claims = dict(numbers.claims)
    following = numbers.next
    for folder in folders:
        number = held.get(folder, claims.get(folder))
        if number is None:
            number, following = following, following + 1
            claims[folder] = number
        given[folder] = number
    return msgspec.structs.replace(numbers, next=following, claims=claims), given


def settled(numbers: RenditionNumbers, folders: Iterable[str]) -> RenditionNumbers:
    """The document without the claims for these folders: the catalogue now says their numbers."""
    gone = set(folders)
    claims = {folder: number for folder, number in numbers.claims.items() if folder not in gone}
    return msgspec.structs.replace(numbers, claims=claims)
