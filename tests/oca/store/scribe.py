"""Another process that writes an index, as the keeper does: in the one under test it is only read."""

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec

from oca.cache.records import DeviceRecord
from oca.store.index import Change, Index

ROOT = Path(__file__).parents[3]


class Scribe:
    """Its methods return when what they say is on disk."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def open(self, folder: str) -> None:
        """Write this index from now on, and no other."""
        self._tell(folder)

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


async def write_down() -> None:
    async with contextlib.AsyncExitStack() as stack:
        index = None
        while line := await asyncio.to_thread(sys.stdin.readline):
            match pickle.loads(bytes.fromhex(line)):
                case str() as folder:
                    await stack.aclose()
                    index = await stack.enter_async_context(Index(folder))
                case DeviceRecord() as record:
                    known = {device.id: number for number, device in index.devices().items()}
                    number = known[record.id] if record.id in known else index.new_device_number()
                    index.put_device(number, record)
                case list() as in_use:
                    for number, device in index.devices().items():
                        if number not in in_use:
                            index.put_device(number, msgspec.structs.replace(device, path=""))
                case changes:
                    await index.apply(*changes)
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(write_down())
