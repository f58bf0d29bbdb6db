"""File systems in image files: disks that can be pulled, turn read-only, lose power and be mounted again."""

import ctypes.util
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.doubles.appliance import wait_until

MIB: Final = 1024 * 1024
SIZE: Final = 512 * MIB
"""Of the image, which is sparse. mkfs.xfs makes nothing below 300 MiB."""
_MAKE: Final = {"xfs": ["mkfs.xfs", "-q", "-f"], "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"]}
_DEADLINE: Final = 60


class Disk:
    """A mounted image. Made by `mounted`."""

    def __init__(self, image: Path, path: Path, kind: str, *, direct: bool) -> None:
        self.image = image
        self.path = path
        """Where it is mounted."""
        self._kind = kind
        self._direct = direct

    def mount(self, *options: str, at: Path | None = None) -> None:
        """Also after a loss of power: the file system reads its log, as after any crash. `at` is a new place for it."""
        self.path = at or self.path
        # Direct: the image's own file system, which may be one that fails, sees each read and write.
        device = _run("losetup", "--find", "--show", f"--direct-io={'on' if self._direct else 'off'}", str(self.image))
        try:
            _run("mount", "-t", self._kind, "-o", ",".join(("noatime", *options)), device, str(self.path))
        finally:
            # Takes effect when nobody uses it any more, mounted or not.
            _run("losetup", "--detach", device)

    def unmount(self) -> None:
        """Raises CalledProcessError while it is in use."""
        _run("umount", str(self.path))

    def pull(self) -> None:
        """It is gone from its place, whoever uses it; who has a file open still reads that."""
        _run("umount", "--lazy", str(self.path))

    def remount_read_only(self) -> None:
        """Raises CalledProcessError while a file is open for writing."""
        _run("mount", "-o", "remount,ro", str(self.path))

    def lose_power(self) -> None:
        """XFS only. Every access fails from now on, and what was not synced is lost. Then unmount, and mount."""
        _run("xfs_io", "-x", "-c", "shutdown", str(self.path))

    def forget(self) -> None:
        """What the kernel remembers of its files, and need not write any more, is read anew from the disk."""
        for file in self.path.rglob("*"):
            with suppress(OSError):
                forget(file)

    @property
    def is_mounted(self) -> bool:
        """Asked of the kernel, because a disk that lost power answers nothing."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return any(line.split()[4] == str(self.path) for line in mounts)

    @property
    def is_in_use(self) -> bool:
        """Whether a loop device still holds the image: after `pull`, until the last open file is closed."""
        return bool(_run("losetup", "--associated", str(self.image)))


@contextmanager
def mounted(folder: Path, kind: str = "xfs", *, image: Path | None = None, direct: bool = False) -> Iterator[Disk]:
    """A new file system, mounted at `folder`; its image lies beside it, or where it is told. Both are gone afterwards.

    Whatever the test did to it: the mount is taken away at the end, and the loop device goes when its last user does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = image or folder.with_name(f"{folder.name}.image")
    with image.open("wb") as file:
        file.truncate(SIZE)
    _run(*_MAKE[kind], str(image))
    disk = Disk(image, folder, kind, direct=direct)
    with _unmounted_when_we_die(folder):
        try:
            disk.mount()
            yield disk
        finally:
            # Twice mounted, or with a process in it that is about to be ended: --lazy takes all that in its stride.
            while disk.is_mounted:
                disk.pull()
            image.unlink()


@contextmanager
def _unmounted_when_we_die(folder: Path) -> Iterator[None]:
    """A test run that is killed leaves no mount behind: another process sees the end of it."""
    script = 'read -r _; while umount --lazy "$0" 2>/dev/null; do :; done'
    with subprocess.Popen(["sh", "-c", script, str(folder)], stdin=subprocess.PIPE, start_new_session=True) as watcher:
        yield
        watcher.communicate()


def wait_released(disk: Disk) -> None:
    """Until nobody uses a disk that was pulled."""
    wait_until(lambda: not disk.is_in_use, f"nobody uses {disk.image}")


def forget(file: Path) -> None:
    """Drop what the kernel remembers of a file. Raises OSError."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@functools.cache
def lacking() -> str:
    """What this machine lacks for tests marked `mounts`; empty if it can do all of it."""
    if ctypes.util.find_library("fuse3") is None:
        return "libfuse3 (Debian: fuse3)"
    for program, package in (("mkfs.xfs", "xfsprogs"), ("xfs_io", "xfsprogs"), ("losetup", "mount")):
        if shutil.which(program) is None:
            return f"{program} (Debian: {package})"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse ({error.strerror})"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder) / "xfs"):
                return ""
        except subprocess.CalledProcessError as error:
            return f"a mounted XFS ({error.stderr.strip() or error})"


def _run(*argv: str) -> str:
    return subprocess.run(
        argv, check=True, capture_output=True, text=True, timeout=_DEADLINE, stdin=subprocess.DEVNULL
    ).stdout.strip()
