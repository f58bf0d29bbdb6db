"""Questions to the kernel that Python has no words for. All are answered without waiting for a disk."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

_OPENAT2: Final = 437
_CACHESTAT: Final = 451
"""Linux 6.5. The numbers are the same on x86_64, aarch64 and all that is newer."""
_AT_FDCWD: Final = -100
_RESOLVE_CACHED: Final = 0x20

# PyDLL: the interpreter lock is kept, because neither call ever waits (giving it up costs more than the call).
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_mmap: Final = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_munmap: Final = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_mincore: Final = _libc.mincore
_mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_how: Final = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_CLOEXEC, 0, _RESOLVE_CACHED)
_range: Final = (ctypes.c_uint64 * 2)()
_stat: Final = (ctypes.c_uint64 * 5)()
_how_at: Final = ctypes.c_void_p(ctypes.addressof(_how))
_range_at: Final = ctypes.c_void_p(ctypes.addressof(_range))
_stat_at: Final = ctypes.c_void_p(ctypes.addressof(_stat))
_no_flags: Final = ctypes.c_uint(0)
_how_bytes: Final = ctypes.c_size_t(ctypes.sizeof(_how))
_cachestat: Final = ctypes.c_long(_CACHESTAT)
_openat2: Final = ctypes.c_long(_OPENAT2)
_cwd: Final = ctypes.c_int(_AT_FDCWD)


def cached_pages(fd: int, offset: int, count: int) -> int:
    """How many pages of the span are in the page cache, those included that are still being read in.

    -1 if this kernel or file system can't say. For 4 MiB 2 microseconds if the pages lie in large folios, as a write
    leaves them, 37 if each stands alone, as reads leave them. Called by one thread only.
    """
    _range[0] = offset
    _range[1] = count
    if _syscall(_cachestat, ctypes.c_int(fd), _range_at, _stat_at, _no_flags) != 0:
        return -1
    return _stat[0]


def is_read_in(fd: int, offset: int, count: int) -> bool:
    """Whether every page of the span is in the page cache and holds its bytes by now. False if that can't be said.

    30 microseconds for 2 MiB. The mapping is only asked about, never read: that could be a SIGBUS.
    """
    start = offset - offset % mmap.PAGESIZE
    length = offset + count - start
    at = _mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, start)
    if at is None or at == _MAP_FAILED:
        return False
    pages = -(-length // mmap.PAGESIZE)
    told = ctypes.create_string_buffer(pages)
    answer = _mincore(at, length, told)
    _munmap(at, length)
    return answer == 0 and 0 not in (byte & 1 for byte in set(told.raw))


def open_at_once(path: str) -> int:
    """Open a file for reading if no disk has to be asked where it is. -1 if one must be, or if anything is wrong."""
    return int(_syscall(_openat2, _cwd, ctypes.c_char_p(os.fsencode(path)), _how_at, _how_bytes))
