"""One device: a folder on a file system of its own, known by an id that lies on it and never by its path.

The folder is opened once and everything on it is reached from that descriptor. So when its file system is unmounted,
or another is mounted in its place, nothing is ever written to what lies there then: `whereabouts` notices it.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import crc32c

from oca.cache.health import Fault, fault_of
from oca.cache.keys import BLOCK_BYTES, ExtentKey, ObjectKey, file_name, key_of_file
from oca.errors import DeviceFault, ExtentDamaged, StoreError

LABEL: Final = "user.oca"
"""The extended attribute that carries an extent's records, for making the index anew from the devices alone."""
_IDENTITY: Final = "oca-device.json"
_PROBE: Final = "oca-probe"
_SCRATCH: Final = "oca-speed"
_EXTENTS: Final = "extents"
_IDENTITY_BYTES: Final = 4096
_LABEL_BYTES: Final = 64 * 1024
_MOST_SPARE: Final = 8
_spare: Final[deque[memoryview]] = deque()
"""Memory of one block each, between two checks."""
_NOT_DIRECT: Final = frozenset({errno.EINVAL, errno.ENOTSUP})
_NO_LABEL: Final = frozenset({errno.ENODATA, errno.ENOTSUP})
_LABEL_REFUSED: Final = frozenset({errno.ENOTSUP, errno.ENOSPC, errno.E2BIG, errno.ERANGE})


class _Entry(NamedTuple):
    """What lies in a folder."""

    name: str
    inode: int
    key: ExtentKey | None
    """If it is named as an extent's file."""
    is_folder: bool


class DeviceFolder:
    """The files of one device. Every method blocks on the disk: call it in the device's own threads.

    All raise `DeviceFault` when the device does not do what was asked, or `StoreError` if it is our own shortage.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._root = -1
        """The folder's descriptor; the number stays the same for as long as we live, whatever it stands for."""
        self._is_open = False

    def __del__(self) -> None:
        if self._root >= 0:
            os.close(self._root)

    def identity(self) -> str | None:
        """The id of the device that lies at the path now; None if there is none, or no folder at all."""
        path = f"{self.path}/{_IDENTITY}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, _IDENTITY_BYTES)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(path, error) from error
        try:
            return str(json.loads(text)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceFault(Fault.UNUSABLE, f"{path}: is not the identity of a device") from error

    def identify(self, fresh: str = "") -> str:
        """Open the device, and return its id; one is written there if the device is new: `fresh`, or a random one."""
        try:
            os.makedirs(f"{self.path}/{_EXTENTS}", mode=0o750, exist_ok=True)  # noqa: PTH103
            found = self.identity()
            if found is None:
                found = fresh or secrets.token_hex(8)
                self._write_identity(found)
            self.open()
        except OSError as error:
            raise _fault(self.path, error) from error
        return found

    def open(self) -> None:
        """Reach the device by what lies at the path now."""
        try:
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _fault(self.path, error) from error
        self._become(root)
        self._is_open = True

    def close(self) -> None:
        """Let go of the file system, so that it can be unmounted. What is asked for now has vanished."""
        if self._is_open:
            self._is_open = False
            # Not closed: a thread that is about to use the number must not meet another file under it.
            self._become(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _become(self, fd: int) -> None:
        if self._root < 0:
            self._root = fd
            return
        os.dup2(fd, self._root, inheritable=False)
        os.close(fd)

    @property
    def _dir(self) -> int:
        if not self._is_open:
            raise DeviceFault(Fault.VANISHED, f"{self.path}: is not open")
        return self._root

    def whereabouts(self, expected: str) -> Fault | None:
        """Whether the device `expected` is still what lies at the path; if it was mounted anew it is opened anew."""
        found = self.identity()
        if found is None:
            return Fault.VANISHED
        if found != expected:
            return Fault.WRONG_DISK
        if not self._is_open:
            self.open()
            return None
        try:
            here, held = os.stat(self.path), os.fstat(self._root)
        except OSError as error:
            raise _fault(self.path, error) from error
        if (here.st_dev, here.st_ino) != (held.st_dev, held.st_ino):
            self.open()
        return None

    def probe(self) -> None:
        """Write a small file durably, read it back and remove it."""
        content = secrets.token_bytes(4096)
        try:
            fd = self._at(_PROBE, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                os.pwrite(fd, content, 0)
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(fd, len(content) + 1, 0) != content:
                    raise DeviceFault(Fault.IO, f"{self.path}: gives back other bytes than were written")
            finally:
                os.close(fd)
                os.unlink(_PROBE, dir_fd=self._dir)
        except OSError as error:
            raise _fault(self.path, error) from error

    def scratch(self) -> int:
        """A new file to write and read, as its descriptor. It has no name: with the descriptor it is gone."""
        try:
            fd = self._at(_SCRATCH, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                os.unlink(_SCRATCH, dir_fd=self._dir)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise _fault(f"{self.path}/{_SCRATCH}", error) from error
        return fd

    def free_bytes(self) -> int:
        """What the file system has left for us."""
        try:
            found = os.fstatvfs(self._dir)
        except OSError as error:
            raise _fault(self.path, error) from error
        return found.f_bavail * found.f_frsize

    def file_path(self, key: ExtentKey) -> str:
        return f"{self.path}/{_EXTENTS}/{file_name(key)}"

    def write_block(
        self,
        key: ExtentKey,
        offset: int,
        content: memoryview,
        holds: int,
        label: Callable[[int], bytes] | None = None,
    ) -> int:
        """Write a block's bytes at `offset` of the extent's file and make them durable. Returns their CRC32C.

        The file must be there with at least `holds` bytes: else `ExtentDamaged`, for the holes of a file made anew
        would be served as the blocks that were lost. With 0 it is a new file, and none may be there.
        The sum is taken of the memory that was verified, not of what a disk may give back. `label` makes of it what the
        file says of itself: set when the bytes are durable, so that it never promises what is not there.
        """
        name = _name(key)
        crc = int(crc32c.crc32c(content))
        try:
            fd = self._open_held(name) if holds else self._create(name)
            try:
                if os.fstat(fd).st_size < holds:
                    raise ExtentDamaged(Fault.SHORT, f"{self.path}/{name}: is shorter than {holds} bytes")
                _write_all(fd, content, offset)
                os.fdatasync(fd)
                if label is not None:
                    _set_label(fd, label(crc))
            finally:
                os.close(fd)
            if not holds:
                self._sync_folder(os.path.dirname(name))  # noqa: PTH120
        except OSError as error:
            raise _fault(f"{self.path}/{name}", error) from error
        return crc

    def copy_block(self, key: ExtentKey, offset: int, content: memoryview, *, is_first: bool) -> None:
        """Write a block of a copy, not durable before `seal`. The first one makes the file."""
        name = _name(key)
        try:
            fd = self._create(name) if is_first else self._open_held(name)
            try:
                _write_all(fd, content, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise _fault(f"{self.path}/{name}", error) from error

    def seal(self, key: ExtentKey, label: bytes) -> None:
        """Make a copy durable, give it its label, and let its pages go."""
        name = _name(key)
        try:
            fd = self._open_held(name)
            try:
                os.fdatasync(fd)
                _set_label(fd, label)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
            self._sync_folder(os.path.dirname(name))  # noqa: PTH120
        except OSError as error:
            raise _fault(f"{self.path}/{name}", error) from error

    def read_block(self, key: ExtentKey, offset: int, length: int, crc: int) -> memoryview:
        """A block's bytes, compared with its sum: `ExtentDamaged` if the file is gone or short or the bytes differ.

        They come from the disk and pass by the page cache, wherever the file system can do that (O_DIRECT). Workers
        take what lies in the page cache for compared, so nothing may come to lie there that is not; and what is hot
        stays there.
        """
        content = _memory(length)
        self._read_compared(key, offset, length, crc, content)
        return content[:length]

    def check_block(self, key: ExtentKey, offset: int, length: int, crc: int) -> None:
        """As `read_block`, for whoever does not want the bytes. Memory that is used again and again makes it twice as
        fast: new pages cost more than reading them from a quick disk.
        """
        try:
            whole = _spare.pop()
        except IndexError:
            whole = _memory(BLOCK_BYTES)
        try:
            self._read_compared(key, offset, length, crc, whole[: _in_pages(length)])
        finally:
            if len(_spare) < _MOST_SPARE:
                _spare.append(whole)

    def _read_compared(self, key: ExtentKey, offset: int, length: int, crc: int, memory: memoryview) -> None:
        name = _name(key)
        try:
            try:
                read = self._read(name, os.O_DIRECT, offset, memory)
            except OSError as error:
                if error.errno not in _NOT_DIRECT:
                    raise
                read = self._read(name, 0, offset, memory)
        except FileNotFoundError as error:
            raise ExtentDamaged(Fault.MISSING, f"{self.path}/{name}: is gone") from error
        except OSError as error:
            raise _fault(f"{self.path}/{name}", error) from error
        if read < length:
            raise ExtentDamaged(Fault.SHORT, f"{self.path}/{name}: ends at {offset + read}")
        if int(crc32c.crc32c(memory[:length])) != crc:
            raise ExtentDamaged(Fault.ROTTEN, f"{self.path}/{name}: the block at {offset} does not have its sum")

    def _read(self, name: str, how: int, offset: int, memory: memoryview) -> int:
        """Fill `memory` as far as the file goes. Returns how far."""
        fd = self._at(name, os.O_RDONLY | how)
        try:
            read = 0
            while read < len(memory) and (count := os.preadv(fd, [memory[read:]], offset + read)):
                read += count
                if read % mmap.PAGESIZE:
                    break  # The file ends here; and from here on O_DIRECT can't read.
            if not how:
                os.posix_fadvise(fd, offset, len(memory), os.POSIX_FADV_DONTNEED)
            return read
        finally:
            os.close(fd)

    def describe(self, key: ExtentKey) -> tuple[int, bytes] | None:
        """How long the extent's file is and what it says of itself (empty: nothing). None if there is no file."""
        name = _name(key)
        try:
            fd = self._at(name, os.O_RDONLY)
            try:
                return os.fstat(fd).st_size, _label_of(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(f"{self.path}/{name}", error) from error

    def remove(self, key: ExtentKey) -> None:
        """Unlink the extent's file. Who holds it open finishes undisturbed; one that is gone already is fine."""
        name = _name(key)
        try:
            os.unlink(name, dir_fd=self._dir)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            return  # Somebody else's: nothing of ours lies there.
        except OSError as error:
            raise _fault(f"{self.path}/{name}", error) from error

    def extents(self, first: int | None = None) -> Iterator[ExtentKey]:
        """Keys of all extent files on the device, or of those that begin with the byte `first`; what else lies there is
        left alone. Those with the same first byte come by inode: so a disk reaches them with the fewest seeks.
        """
        try:
            if first is not None:
                yield from self._extents_below(f"{_EXTENTS}/{first:02x}")
                return
            for entry in self._entries(_EXTENTS):
                if entry.is_folder:
                    yield from self._extents_below(f"{_EXTENTS}/{entry.name}")
        except OSError as error:
            raise _fault(f"{self.path}/{_EXTENTS}", error) from error

    def extents_of(self, key: ObjectKey) -> list[ExtentKey]:
        """Keys of an object's extent files on the device, of all its generations."""
        try:
            found = [entry.key for entry in self._entries(os.path.dirname(_name(key)))]  # noqa: PTH120
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _fault(f"{self.path}/{_EXTENTS}", error) from error
        return [extent for extent in found if extent is not None and extent.startswith(key)]

    def _extents_below(self, name: str) -> list[ExtentKey]:
        found: list[tuple[int, ExtentKey]] = []
        folders = [name]
        while folders:
            folder = folders.pop()
            try:
                entries = self._entries(folder)
            except FileNotFoundError:
                continue  # Nothing begins with that byte.
            for entry in entries:
                if entry.key is not None:
                    found.append((entry.inode, entry.key))
                elif entry.is_folder:
                    folders.append(f"{folder}/{entry.name}")
        return [key for _, key in sorted(found)]

    def _entries(self, name: str) -> list[_Entry]:
        fd = self._at(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                return [_entry(entry) for entry in entries]
        finally:
            os.close(fd)

    def _write_identity(self, identity: str) -> None:
        path = f"{self.path}/{_IDENTITY}"
        fresh = f"{self.path}/oca-device.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, json.dumps({"id": identity, "format": 1}).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, path)  # noqa: PTH104
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _at(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, 0o640, dir_fd=self._dir)

    def _open_held(self, name: str) -> int:
        try:
            return self._at(name, os.O_WRONLY)
        except FileNotFoundError as error:
            raise ExtentDamaged(Fault.MISSING, f"{self.path}/{name}: is gone") from error

    def _create(self, name: str) -> int:
        # Never in the place of another: a thread that hung on the disk for long must not replace what was kept since.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            try:
                return self._at(name, flags)
            except FileNotFoundError:
                self._make_folders(os.path.dirname(name))  # noqa: PTH120
                return self._at(name, flags)
        except FileExistsError as error:
            raise ExtentDamaged(Fault.SHORT, f"{self.path}/{name}: is there already") from error

    def _make_folders(self, folder: str) -> None:
        for level in (os.path.dirname(folder), folder):  # noqa: PTH120
            try:
                os.mkdir(level, 0o750, dir_fd=self._dir)
            except FileExistsError:
                continue
            self._sync_folder(os.path.dirname(level))  # noqa: PTH120

    def _sync_folder(self, name: str) -> None:
        fd = self._at(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _name(key: ExtentKey) -> str:
    return f"{_EXTENTS}/{file_name(key)}"


def _entry(entry: os.DirEntry[str]) -> _Entry:
    key = key_of_file(entry.name)
    # Some file systems have to be asked for what an entry is, while its folder is open: extents are spared that.
    return _Entry(entry.name, entry.inode(), key, key is None and entry.is_dir(follow_symlinks=False))


def _memory(length: int) -> memoryview:
    """As O_DIRECT wants it: it begins with a page, and has whole pages."""
    return memoryview(mmap.mmap(-1, _in_pages(length)))


def _in_pages(length: int) -> int:
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


def _write_all(fd: int, content: memoryview, offset: int) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(fd, content[written:], offset + written)


def _set_label(fd: int, label: bytes) -> None:
    """An extent without one is served like any other; only `oca index rebuild` can't know it."""
    if len(label) > _LABEL_BYTES:
        return
    try:
        os.setxattr(fd, LABEL, label)
    except OSError as error:
        # A file system without them, or (ext4: one page in all) without room for one as long as this.
        if error.errno not in _LABEL_REFUSED:
            raise


def _label_of(fd: int) -> bytes:
    try:
        return os.getxattr(fd, LABEL)
    except OSError as error:
        if error.errno in _NO_LABEL:
            return b""
        raise


def _fault(what: str, error: OSError) -> StoreError:
    fault = fault_of(error.errno or 0)
    message = f"{what}: {error.strerror}"
    return StoreError(message) if fault is None else DeviceFault(fault, message)
