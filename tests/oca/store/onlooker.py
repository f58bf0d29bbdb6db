"""Another process that looks at an index: LMDB can be opened only once by each."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from oca.cache.records import DeviceRecord, ExtentRecord, ObjectRecord
from oca.store.index import IndexReader

ROOT = Path(__file__).parents[3]


class Onlooker:
    """Asks an `IndexReader` in a child process."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def open(self, folder: str) -> None:
        self._ask("open", folder.encode())

    def object(self, key: bytes) -> ObjectRecord | None:
        return msgspec.msgpack.decode(self._ask("object", key), type=ObjectRecord | None)

    def extent(self, key: bytes) -> ExtentRecord | None:
        return msgspec.msgpack.decode(self._ask("extent", key), type=ExtentRecord | None)

    def devices(self) -> dict[int, DeviceRecord]:
        return msgspec.msgpack.decode(self._ask("devices", b""), type=dict[int, DeviceRecord])

    def close(self) -> None:
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()

    def _ask(self, what: str, argument: bytes) -> bytes:
        self._child.stdin.write(f"{what} {argument.hex()}\n".encode())
        self._child.stdin.flush()
        return bytes.fromhex(self._child.stdout.readline().decode())


def main() -> None:
    reader = None
    for line in sys.stdin:
        what, _, argument = line.strip().partition(" ")
        given = bytes.fromhex(argument)
        found = None
        if what == "open":
            if reader is not None:
                reader.close()
            reader = IndexReader(given.decode())
        elif what == "devices":
            found = reader.devices()
        else:
            found = getattr(reader, what)(given)
        print(msgspec.msgpack.encode(found).hex(), flush=True)


if __name__ == "__main__":
    main()
