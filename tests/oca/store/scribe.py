"""Another process that writes an index, as the keeper does: in the one under test it is only read."""

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

from oca.cache.records import DeviceRecord
from oca.store.index import Change, Index

ROOT = Path(__file__).parents[3]


class Scribe:
    """Its `apply` returns when the commit is on disk."""

    def __init__(self, folder: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._child.stdout.readline()

    def apply(self, *changes: Change) -> None:
        self._tell(changes)

    def register_device(self, record: DeviceRecord) -> None:
        self._tell(record)

    def retire_devices(self, in_use: list[int]) -> None:
        self._tell(in_use)

    def close(self) -> None:
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()

    def _tell(self, what: object) -> None:
        self._child.stdin.write(pickle.dumps(what).hex().encode() + b"\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == b"done\n"


async def write_down(folder: str) -> None:
    async with Index(folder) as index:
        print("open", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            match pickle.loads(bytes.fromhex(line)):
                case DeviceRecord() as record:
                    index.register_device(record)
                case list() as in_use:
                    index.retire_devices(in_use)
                case changes:
                    await index.apply(*changes)
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(write_down(sys.argv[1]))
