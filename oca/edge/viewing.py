"""What is done with what players say of themselves (oca/http/cmcd.py): answers are paced, what is asked for next is
brought ahead of time, and how well viewers are served is counted.
"""

from __future__ import annotations

import socket
import struct
from hashlib import blake2b
from typing import Final

from oca.cache.keys import BLOCK_BYTES
from oca.counters import BUFFER_AT, Count, buffer_bucket_of
from oca.edge.courier import Courier
from oca.edge.lookup import Held, Lookup
from oca.edge.tally import Tally
from oca.http.cmcd import Said, dynamic_line, next_path, pace_bps
from oca.settings import Viewers
from oca.store.board import Board

_SO_MAX_PACING_RATE: Final = 47
_UNPACED: Final = 2**64 - 1
_INFO_BYTES: Final = 168
"""Of struct tcp_info (linux/tcp.h), up to tcpi_delivery_rate."""
_INFO: Final = struct.Struct("=7xB8xI48xI8xI76xQ")
"""tcpi_delivery_rate_app_limited (the lowest bit), tcpi_snd_mss, tcpi_rtt, tcpi_snd_cwnd, tcpi_delivery_rate."""
_MOST_SESSIONS: Final = 50_000
"""Of one second; more than a worker answers."""
_FLOOR: Final = 4
"""An answer is never paced below so many times http.min_send_rate: we must not cut a client for what we did."""


class Viewing:
    """One for the worker."""

    def __init__(
        self,
        settings: Viewers,
        appliance: bytes,
        min_send_rate: int,
        board: Board,
        lookup: Lookup,
        courier: Courier,
        tally: Tally,
    ) -> None:
        self._paces = settings.pace
        self._prefetches = settings.prefetch
        self._appliance = appliance
        self._least_bps = _FLOOR * 8 * min_send_rate
        self._board = board
        self._lookup = lookup
        self._courier = courier
        self._tally = tally
        self._sessions: set[int] = set()

    def heard(self, said: Said, held: Held) -> None:
        """Count what a player said with a request for this object."""
        words = self._tally.words
        words[Count.CMCD_REQUESTS] += 1
        if said.session:
            salted = blake2b(said.session, digest_size=8, key=self._board.salt).digest()
            if len(self._sessions) < _MOST_SESSIONS:
                self._sessions.add(int.from_bytes(salted, "little"))
        if not said.has_picture:
            return
        stalls = int(said.is_starved and not said.is_starting)
        words[Count.VIEWER_STALLS] += stalls
        played = said.duration_ms or 0
        kilobits = 0
        if played and said.bitrate_bps:
            kilobits = said.bitrate_bps * played // 1_000_000
            words[Count.RATED_MS] += played
            words[Count.RATED_KILOBITS] += kilobits
        words[Count.PLAYED_MS] += played
        if said.buffer_ms is not None:
            words[BUFFER_AT + buffer_bucket_of(said.buffer_ms / 1000)] += 1
            words[Count.BUFFER_MS] += said.buffer_ms
        held.watched.told(stalls, played, kilobits)

    def pace(self, sock: socket.socket, said: Said | None, paced_bps: int) -> int:
        """Set the socket's rate for the answer that follows; `paced_bps` is how it is set now, 0 if it is not.
        Returns how it is set from now on.

        The kernel spreads the packets by itself; no queueing discipline is needed (tcp(7), since Linux 4.13).
        """
        wanted = 0
        if said is not None and self._paces:
            wanted = pace_bps(said, self._least_bps) or 0
        if wanted == paced_bps:
            return paced_bps
        rate = _UNPACED if not wanted else wanted // 8
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate.to_bytes(8, "little"))
        except OSError:
            return paced_bps
        if wanted:
            self._tally.words[Count.PACED] += 1
        return wanted

    def line(self, sock: socket.socket) -> bytes:
        """What the player is told: the CMSD-Dynamic line. Empty if the connection is gone."""
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            return b""
        if len(info) < _INFO_BYTES:
            return b""
        limited, mss, rtt_us, window, delivered = _INFO.unpack(info)
        # What was sent slowly because there was no more to send says nothing of the way; the window does.
        bps = delivered * 8 if delivered and not limited & 1 else window * mss * 8_000_000 // max(rtt_us, 1)
        return dynamic_line(self._appliance, rtt_us, bps, self._board.most_bps)

    def bring_next(self, said: Said, path: str) -> None:
        """Have brought what the player asks for next, unless it is here."""
        if not self._prefetches:
            return
        following = next_path(path, said.next_object)
        if following is None:
            return
        raw = following.encode()
        held = self._lookup.remembered(raw) or self._lookup.find(raw, following)
        start = said.next_start
        if held is not None:
            block = start // BLOCK_BYTES * BLOCK_BYTES
            if start >= held.record.size or self._lookup.holds(held, start, min(block + BLOCK_BYTES, held.record.size)):
                return
        self._tally.words[Count.PREFETCHES] += 1
        self._courier.bring(following, start)

    def take_sessions(self) -> list[int]:
        """The sessions that asked for something since the last time, as numbers that name nobody."""
        taken = list(self._sessions)
        self._sessions.clear()
        return taken
