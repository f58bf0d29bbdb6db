"""Cold reads: each device has its own few threads, so that one slow disk never delays a viewer served from another."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

CHUNK_BYTES: Final = 2 * 1024 * 1024
"""What is sent, probed or read ahead at once."""
_THREADS: Final = 4
_one_byte: Final = bytearray(1)


def is_warm(fd: int, offset: int, count: int) -> bool:
    """Whether the first and the last page of a span are in the page cache: `sendfile` will not wait for the disk.

    0.7 microseconds each. A file system that does not know RWF_NOWAIT is taken as warm.
    """
    try:
        os.preadv(fd, [_one_byte], offset, os.RWF_NOWAIT)
        if count > 4096:
            os.preadv(fd, [_one_byte], offset + count - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class Pools:
    """`read` brings a span into the page cache and then calls back on the loop, with the error if there was one."""

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._loop = asyncio.get_running_loop()
        self._local = threading.local()

    def read(self, device: int, fd: int, offset: int, count: int, done: Callable[[OSError | None], None]) -> None:
        pool = self._pools.get(device)
        if pool is None:
            pool = self._pools[device] = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"device-{device}")
        own = os.dup(fd)  # The response may end, and close its file, before the disk answers.
        pool.submit(self._read, own, offset, count, done)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, fd: int, offset: int, count: int, done: Callable[[OSError | None], None]) -> None:
        fault: OSError | None = None
        try:
            os.posix_fadvise(fd, offset, count, os.POSIX_FADV_WILLNEED)
            buffer = getattr(self._local, "buffer", None)
            if buffer is None:
                buffer = self._local.buffer = memoryview(bytearray(CHUNK_BYTES))
            os.preadv(fd, [buffer[:count]], offset)
        except OSError as error:
            fault = error
        finally:
            os.close(fd)
        self._loop.call_soon_threadsafe(done, fault)
