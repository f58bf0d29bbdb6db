"""What all connections of a worker share."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from oca.edge.courier import Courier
from oca.edge.lookup import Lookup
from oca.edge.pages import Pages
from oca.edge.pools import Pools
from oca.edge.tally import Tally
from oca.edge.viewing import Viewing
from oca.http.replies import CommonHeads, Cors, date_line
from oca.settings import Settings
from oca.store.board import Board

if TYPE_CHECKING:
    from oca.edge.connection import Connection

SMALL_BYTES: Final = 64 * 1024
"""Bodies up to this are read and sent with their head in one call each; beyond it the kernel carries them."""


class Worker:
    """Settings and parts, read by every connection."""

    def __init__(
        self,
        settings: Settings,
        board: Board,
        lookup: Lookup,
        courier: Courier,
        pools: Pools,
        pages: Pages,
        tally: Tally,
        viewing: Viewing,
        *,
        with_cookies: bool = False,
    ) -> None:
        self.http = settings.http
        self.fetch = settings.fetch
        self.id = settings.appliance.id.encode()
        self.board = board
        self.lookup = lookup
        self.courier = courier
        self.pools = pools
        self.pages = pages
        self.tally = tally
        self.viewing = viewing
        self.connections: set[Connection] = set()
        self.viewers = itertools.count(1)
        """Numbers for connections."""
        self.is_leaving = False
        """New connections go elsewhere; those that are here are closed after their response."""
        self.is_stopping = False
        """The appliance ends: nobody may send another request."""
        rules = settings.cors
        self.heads = CommonHeads(
            Cors(rules.allow_origins, rules.expose_headers, rules.timing_allow_origin, with_cookies=with_cookies)
        )
        self.scratch = bytearray(SMALL_BYTES + 8192)
        self.scratch_view = memoryview(self.scratch)
        self._own_loop = re.compile(rb"(?:^|,)\s*" + re.escape(self.id) + rb"\s*(?:[;,]|$)")
        self._tail_second = 0
        self._hit_tail = b""

    def hit_tail(self, second: int) -> bytes:
        """The last lines of an ordinary hit's head; they change once a second."""
        if second != self._tail_second:
            self._tail_second = second
            self._hit_tail = (
                date_line(second) + self.heads.cors_lines(None) + b"Cache-Status: " + self.id + b"; hit\r\n\r\n"
            )
        return self._hit_tail

    def is_loop(self, cdn_loop: bytes) -> bool:
        """Whether a CDN-Loop header says that the request has been here already (RFC 8586)."""
        return self._own_loop.search(cdn_loop) is not None
