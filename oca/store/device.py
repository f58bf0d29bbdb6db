"""One device: a folder on a file system of its own, known by an id that lies on it and never by its path."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import crc32c

from oca.cache.keys import ExtentKey, file_name, key_of_file
from oca.errors import ExtentDamaged, StoreError

_IDENTITY: Final = "oca-device.json"
_EXTENTS: Final = "extents"


class DeviceFolder:
    """The files of one device. Every method blocks on the disk: call it in the device's own threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._extents = f"{path}/{_EXTENTS}"

    def identify(self) -> str:
        """The device's id, written there if the device is new. Raises `StoreError`."""
        identity = Path(self.path) / _IDENTITY
        try:
            Path(self._extents).mkdir(parents=True, exist_ok=True)
            if not identity.exists():
                fresh = identity.with_suffix(".new")
                with fresh.open("w") as file:
                    json.dump({"id": secrets.token_hex(8), "format": 1}, file)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.rename(identity)
                _sync_folder(self.path)
            found = json.loads(identity.read_text())
            return str(found["id"])
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{identity}: is not the identity of a device") from error

    def file_path(self, key: ExtentKey) -> str:
        return f"{self._extents}/{file_name(key)}"

    def write_block(self, key: ExtentKey, offset: int, content: memoryview, holds: int) -> int:
        """Write a block's bytes at `offset` of the extent's file and make them durable. Returns their CRC32C.

        The file must be there with at least `holds` bytes: else `ExtentDamaged`, for the holes of a file made anew
        would be served as the blocks that were lost. With 0 it is a new file, and none may be there.
        The sum is taken of the memory that was verified, not of what a disk may give back.
        """
        path = self.file_path(key)
        crc = int(crc32c.crc32c(content))
        try:
            fd = self._open_held(path) if holds else self._create(path)
            try:
                if os.fstat(fd).st_size < holds:
                    raise ExtentDamaged(f"{path}: is shorter than {holds} bytes")
                written = 0
                while written < len(content):
                    written += os.pwrite(fd, content[written:], offset + written)
                os.fdatasync(fd)
            finally:
                os.close(fd)
            if not holds:
                _sync_folder(os.path.dirname(path))  # noqa: PTH120
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        return crc

    def remove(self, key: ExtentKey) -> None:
        """Unlink the extent's file. Who holds it open finishes undisturbed; one that is gone already is fine."""
        try:
            os.unlink(self.file_path(key))  # noqa: PTH108
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.file_path(key)}: {error.strerror}") from error

    def extents(self) -> Iterator[ExtentKey]:
        """Keys of all extent files on the device; what else lies there is left alone."""
        try:
            for folder, _, names in os.walk(self._extents):
                del folder
                for name in names:
                    key = key_of_file(name)
                    if key is not None:
                        yield key
        except OSError as error:
            raise StoreError(f"{self._extents}: {error.strerror}") from error

    def _open_held(self, path: str) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ExtentDamaged(f"{path}: is gone") from error

    def _create(self, path: str) -> int:
        folder = os.path.dirname(path)  # noqa: PTH120
        if not os.path.isdir(folder):  # noqa: PTH112
            self._make_folders(folder)
        # Never in the place of another: a thread that hung on the disk for long must not replace what was kept since.
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def _make_folders(self, folder: str) -> None:
        parent = os.path.dirname(folder)  # noqa: PTH120
        for level in (parent, folder):
            try:
                os.mkdir(level, 0o750)  # noqa: PTH102
            except FileExistsError:
                continue
            _sync_folder(os.path.dirname(level))  # noqa: PTH120


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
