"""A disk that fails as a test tells it: a FUSE file system of our own over a plain folder, in a process of its own.

What passes through is honest, to the bit: bytes, holes, xattrs, fsync. What is wrong with it is said at run time, for
one kind of act, for all paths or those that match, for ever or so many times.
"""

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.doubles.appliance import PATIENCE, wait_until
from tests.doubles.mounts import forget

_REPOSITORY = Path(__file__).resolve().parents[2]
_READ_AHEAD_KIB = 1024


class Act(StrEnum):
    """What is done to a disk."""

    LOOK = "look"
    """Names, attributes and opening."""
    READ = "read"
    """Bytes of files, as far as the kernel does not remember them."""
    WRITE = "write"
    """Bytes of files."""
    SYNC = "sync"
    CHANGE = "change"
    """New files and folders, removals, lengths, attributes."""


ALL = tuple(Act)
WRITES = (Act.WRITE, Act.SYNC, Act.CHANGE)


@dataclasses.dataclass(frozen=True)
class Trouble:
    """The act waits first, then fails."""

    acts: Collection[str]
    error: int = 0
    """An errno; 0: it succeeds after all."""
    seconds: float | None = 0.0
    """How long it waits; None: until the trouble is mended."""
    where: str = "*"
    """Which paths on the disk, as fnmatch reads it: `*` stands for slashes too."""
    times: int | None = None
    """How often; None: always."""


class FaultyDisk:
    """Made by `faulty_disk`."""

    def __init__(self, path: Path, beneath: Path, line: socket.socket) -> None:
        self.path = path
        """Where it is mounted."""
        self.beneath = beneath
        """The folder on which its bytes lie."""
        self._line = line.makefile("rwb", buffering=0)

    # --- What goes wrong ----------------------------------------------------------------------------------------------

    def fail(self, *acts: Act, error: int = errno.EIO, where: str = "*", times: int | None = None) -> int:
        """These acts fail. Returns a number for `mend`."""
        return self.cause(Trouble(acts, error, where=where, times=times))

    def hold(self, *acts: Act, where: str = "*") -> int:
        """These acts get no answer before it is mended."""
        return self.cause(Trouble(acts, seconds=None, where=where))

    def delay(self, *acts: Act, seconds: float, where: str = "*") -> int:
        """These acts take so much longer."""
        return self.cause(Trouble(acts, seconds=seconds, where=where))

    def be_full(self) -> int:
        """No byte and no name more, though what is there can be removed."""
        return self.cause(Trouble((Act.WRITE,), errno.ENOSPC))

    def be_read_only(self) -> int:
        return self.cause(Trouble(WRITES, errno.EROFS))

    def cause(self, trouble: Trouble) -> int:
        return self._say(order="cause", **dataclasses.asdict(trouble))

    def mend(self, number: int | None = None) -> None:
        """This trouble is over, or all are; whoever was held goes on."""
        self._say(order="mend", number=number)

    def rot(self, file: Path, offset: int, bits: int = 1) -> None:
        """Flip bits of the byte at `offset` of a file, where it lies; it is read from there the next time."""
        fd = os.open(self.beneath / file.relative_to(self.path), os.O_RDWR)
        try:
            (byte,) = os.pread(fd, 1, offset)
            os.pwrite(fd, bytes([byte ^ bits]), offset)
        finally:
            os.close(fd)
        self.forget(file)

    def forget(self, *files: Path) -> None:
        """What the kernel remembers of these files (of all, if none is named) is read anew from the disk."""
        for file in files or self.files():
            # One that went meanwhile, or can't be opened: there is nothing to forget.
            with suppress(OSError):
                forget(file)

    # --- What happened ------------------------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """All files on it, listed beneath: no trouble is met."""
        found = [file for file in self.beneath.rglob("*") if file.is_file()]
        return [self.path / file.relative_to(self.beneath) for file in found]

    def count(self, *acts: Act) -> int:
        """How often these acts were asked for so far."""
        met = self._say(order="counts")["met"]
        return sum(met.get(act, 0) for act in acts)

    def held(self, *acts: Act) -> int:
        """How many of these acts wait just now."""
        held = self._say(order="counts")["held"]
        return sum(held.get(act, 0) for act in acts)

    def wait_held(self, *acts: Act) -> None:
        """Until one of these acts waits."""
        wait_until(lambda: self.held(*acts), f"{' or '.join(acts)} is held")

    def wait_mounted(self) -> None:
        """The first that it says is that it is there."""
        assert self._line.readline(), "the faulty disk could not be mounted"
        # The kernel asks for this much at once, as of a real disk; before it is told so it asks for 128 KiB.
        device = os.stat(self.path).st_dev
        bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        bdi.write_text(str(_READ_AHEAD_KIB))

    def _say(self, **order: Any) -> Any:
        self._line.write(json.dumps(order).encode() + b"\n")
        return json.loads(self._line.readline())


@contextmanager
def faulty_disk(folder: Path) -> Iterator[FaultyDisk]:
    """A disk at `folder`/mount that has nothing wrong with it yet; its bytes lie in `folder`/beneath."""
    path, beneath = folder / "mount", folder / "beneath"
    for made in (path, beneath):
        made.mkdir(parents=True, exist_ok=True)
    ours, its = socket.socketpair()
    ours.settimeout(PATIENCE)
    with ours:
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.doubles.passthrough", str(beneath), str(path), str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=_REPOSITORY,
            )
        try:
            disk = FaultyDisk(path, beneath, ours)
            disk.wait_mounted()
            yield disk
            disk.mend()
        finally:
            # It unmounts itself when it hears no more from us.
            ours.shutdown(socket.SHUT_RDWR)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            subprocess.run(["umount", "-q", "-l", str(path)], check=False, stderr=subprocess.DEVNULL)
