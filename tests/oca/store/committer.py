"""A process that commits one change after the other, and says so, until it is killed."""

import asyncio
import random
import sys

from oca.cache.keys import extent_key, object_key
from oca.cache.records import ObjectRecord
from oca.store.index import AddBlock, Change, DropExtent, DropObject, Index, PutObject

PATHS = [f"/titles/{number}/film.mp4" for number in range(6)]


def changes(count: int) -> list[tuple[Change, ...]]:
    """The same for everybody who asks."""
    dice = random.Random(7)
    listed: list[tuple[Change, ...]] = []
    for turn in range(count):
        path = dice.choice(PATHS)
        key = object_key(path)
        extent = extent_key(key, 1, dice.randrange(3))
        put = PutObject(key, ObjectRecord(path, 1, 1000 + turn))
        match dice.randrange(8):
            case 0:
                listed.append((DropObject(key),))
            case 1:
                listed.append((DropExtent(extent),))
            case _:
                block = dice.randrange(16)
                listed.append((put, AddBlock(extent, 0, dice.randrange(5), block, turn, 4096)))
    return listed


async def commit_for_ever(folder: str, count: int) -> None:
    async with Index(folder) as index:
        for number, change in enumerate(changes(count)):
            await index.apply(*change)
            print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(commit_for_ever(sys.argv[1], int(sys.argv[2])))
