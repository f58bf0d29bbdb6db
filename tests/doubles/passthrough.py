"""The process behind `tests.doubles.faulty`: a FUSE file system that passes all on to a folder, and fails as told.

    python -m tests.doubles.passthrough FOLDER MOUNT_POINT SOCKET_FD

Orders come as JSON lines over the inherited socket, each is answered by one. When the other end is closed, by whatever
cause, the file system is unmounted lazily and the process ends: no test run leaves a mount behind.
"""

import ctypes
import dataclasses
import errno
import fnmatch
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import mfusepy

from tests.doubles.faulty import Act, Trouble

_THREADS = 256
"""Requests that may be held at once while others are answered."""
_REQUEST_BYTES = 1024 * 1024
_MNT_DETACH = 2
_NOT_OURS = os.O_DIRECT | os.O_CREAT
"""Flags of open(2) that are the kernel's affair: with the first, bytes come past its cache, but not aligned."""
_UNLINKED = ".fuse_hidden"
"""What libfuse calls a file that was unlinked and is still open."""


class Troubles:
    """What is wrong just now. Every operation passes `meet` first."""

    def __init__(self) -> None:
        self._now: dict[int, Trouble] = {}
        self._numbers = 0
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._held: Counter[str] = Counter()

    def cause(self, trouble: Trouble) -> int:
        with self._changed:
            self._numbers += 1
            self._now[self._numbers] = trouble
            return self._numbers

    def mend(self, number: int | None) -> None:
        """One trouble, or all, is over; whoever was held by it goes on."""
        with self._changed:
            if number is None:
                self._now.clear()
            else:
                self._now.pop(number, None)
            self._changed.notify_all()

    def counts(self) -> dict[str, dict[str, int]]:
        with self._changed:
            return {"met": dict(self._counts), "held": dict(self._held)}

    @property
    def is_full(self) -> bool:
        with self._changed:
            return any(trouble.error == errno.ENOSPC for trouble in self._now.values())

    def meet(self, act: Act, path: str) -> None:
        """Wait and fail as the troubles of this act on this path say. Raises OSError."""
        with self._changed:
            self._counts[act] += 1
            for number, trouble in list(self._now.items()):
                if act in trouble.acts and fnmatch.fnmatchcase(path, trouble.where):
                    self._suffer(act, number, trouble)

    def _suffer(self, act: Act, number: int, trouble: Trouble) -> None:
        if trouble.times is not None:
            if trouble.times == 1:
                del self._now[number]
            else:
                self._now[number] = dataclasses.replace(trouble, times=trouble.times - 1)
        if trouble.seconds is None or trouble.seconds > 0:
            until = None if trouble.seconds is None else time.monotonic() + trouble.seconds
            self._held[act] += 1
            while number in self._now:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            self._held[act] -= 1
        if trouble.error:
            raise OSError(trouble.error, os.strerror(trouble.error))


class Passthrough(mfusepy.Operations):
    use_ns = True

    def __init__(self, folder: str, troubles: Troubles, line: socket.socket) -> None:
        self._folder = folder
        self._troubles = troubles
        self._line = line
        self._paths: dict[int, str] = {}
        """Of open files, by descriptor: a file that was unlinked while open has none any more."""

    def init_with_config(self, conn_info, config_3) -> None:
        # Requests in the background are what the kernel reads ahead: one that is held must not hold up the others.
        conn_info.max_background = _THREADS
        conn_info.congestion_threshold = _THREADS
        conn_info.max_read = conn_info.max_readahead = _REQUEST_BYTES
        # All changes go through the mount, so that what the kernel remembers is right, as it is with a real disk.
        config_3.kernel_cache = 1
        config_3.nullpath_ok = 1
        self._line.sendall(b"{}\n")

    def _at(self, act: Act, path: str) -> str:
        self._troubles.meet(act, path)
        return self._folder + path

    def _open_at(self, act: Act, fh: int) -> int:
        self._troubles.meet(act, self._paths[fh])
        return fh

    # --- Looking ------------------------------------------------------------------------------------------------------

    def getattr(self, path, fh=None):
        found = os.lstat(self._at(Act.LOOK, path)) if path is not None else os.fstat(fh)
        attributes = {name: getattr(found, name) for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")}
        times = {f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return attributes | times | {"st_blocks": found.st_blocks, "st_blksize": found.st_blksize}

    def opendir(self, path):
        return self._opened(path, os.open(self._at(Act.LOOK, path), os.O_RDONLY | os.O_DIRECTORY))

    def readdir(self, path, fh):
        listed = os.listdir(self._open_at(Act.LOOK, fh))
        return [".", "..", *(name for name in listed if not name.startswith(_UNLINKED))]

    def statfs(self, path):
        found = os.statvfs(self._at(Act.LOOK, path))
        fields = {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}
        return fields | {"f_bfree": 0, "f_bavail": 0} if self._troubles.is_full else fields

    def getxattr(self, path, name, position=0):
        return os.getxattr(self._at(Act.LOOK, path), name)

    def listxattr(self, path):
        return os.listxattr(self._at(Act.LOOK, path))

    # --- Files --------------------------------------------------------------------------------------------------------

    def open(self, path, flags):
        return self._opened(path, os.open(self._at(Act.LOOK, path), flags & ~_NOT_OURS))

    def create(self, path, mode, flags=os.O_RDWR):
        return self._opened(path, os.open(self._at(Act.CHANGE, path), flags & ~_NOT_OURS | os.O_CREAT, mode))

    def _opened(self, path: str, fd: int) -> int:
        self._paths[fd] = path
        return fd

    def read(self, path, size, offset, fh):
        return os.pread(self._open_at(Act.READ, fh), size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(self._open_at(Act.WRITE, fh), data, offset)

    def fsync(self, path, datasync, fh):
        (os.fdatasync if datasync else os.fsync)(self._open_at(Act.SYNC, fh))
        return 0

    def fsyncdir(self, path, datasync, fh):
        return self.fsync(path, datasync, fh)

    def truncate(self, path, length, fh=None):
        if fh is None:
            os.truncate(self._at(Act.CHANGE, path), length)
        else:
            os.ftruncate(self._open_at(Act.CHANGE, fh), length)
        return 0

    def release(self, path, fh):
        del self._paths[fh]
        os.close(fh)
        return 0

    def releasedir(self, path, fh):
        return self.release(path, fh)

    # --- Names and attributes -----------------------------------------------------------------------------------------

    def mkdir(self, path, mode):
        os.mkdir(self._at(Act.CHANGE, path), mode)
        return 0

    def rmdir(self, path):
        os.rmdir(self._at(Act.CHANGE, path))
        return 0

    def unlink(self, path):
        os.unlink(self._at(Act.CHANGE, path))
        return 0

    def rename(self, old, new):
        os.rename(self._at(Act.CHANGE, old), self._folder + new)
        return 0

    def chmod(self, path, mode):
        os.chmod(self._at(Act.CHANGE, path), mode)
        return 0

    def chown(self, path, uid, gid):
        os.chown(self._at(Act.CHANGE, path), uid, gid)
        return 0

    def utimens(self, path, times=None):
        os.utime(self._at(Act.CHANGE, path), ns=times)
        return 0

    def setxattr(self, path, name, value, options, position=0):
        os.setxattr(self._at(Act.CHANGE, path), name, value, options)
        return 0

    def removexattr(self, path, name):
        os.removexattr(self._at(Act.CHANGE, path), name)
        return 0


class Mount(mfusepy.FUSE):
    """Runs until it is unmounted."""

    def truncate_fuse_3(self, path, length, fip):
        # mfusepy 3.1 forgets which open file is meant, and of one that is held no path is told (nullpath_ok).
        return self.ftruncate(path, length, fip)


def _obey(line: socket.socket, troubles: Troubles, mount_point: str) -> None:
    with line.makefile("rwb", buffering=0) as orders:
        for packed in orders:
            order = json.loads(packed)
            answer: object = None
            match order.pop("order"):
                case "cause":
                    answer = troubles.cause(Trouble(**order))
                case "mend":
                    troubles.mend(order["number"])
                case "counts":
                    answer = troubles.counts()
            orders.write(json.dumps(answer).encode() + b"\n")
    # Nobody is there any more to give orders.
    ctypes.CDLL(None).umount2(mount_point.encode(), _MNT_DETACH)
    os._exit(0)


def main() -> None:
    folder, mount_point, fd = sys.argv[1:]
    line = socket.socket(fileno=int(fd))
    troubles = Troubles()
    threading.Thread(target=_obey, args=(line, troubles, mount_point), daemon=True).start()
    Mount(
        Passthrough(str(Path(folder).resolve()), troubles, line),
        mount_point,
        foreground=True,
        fsname="faulty",
        allow_other=True,
        default_permissions=True,
        max_read=_REQUEST_BYTES,
        max_threads=_THREADS,
        max_idle_threads=_THREADS,
    )


if __name__ == "__main__":
    main()
