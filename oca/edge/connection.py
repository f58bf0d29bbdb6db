"""One client connection: reads request heads, decides, and sends heads and spans of files.

This is the hot path. A hit costs one `recv`, one look at a stamp, and one `send` or `sendfile`; nothing here awaits.
The states, and the deadline that ends each:

| state | what is waited for | deadline |
|---|---|---|
| SHAKING | a TLS handshake (`secured.py`) | header_timeout, then closed |
| IDLE | the first byte of a request | idle_timeout, then closed |
| READING | the rest of a head | header_timeout, then 408 |
| WAITING | the keeper, a flight, a cold disk | fetch.total_deadline without a byte, then 504 or cut |
| SENDING | the client | min_send_rate over min_send_window, then cut |
| LINGERING | the client to read our last words | 2 s, then closed |
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from oca import ipc
from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES
from oca.counters import PLACES, Count, Outcome, Place
from oca.edge.courier import BlockView
from oca.edge.extents import Copy, Damaged, GivenUp, Lying, OpenExtent
from oca.edge.lookup import Held
from oca.edge.pools import Answer, Job
from oca.edge.worker import SMALL_BYTES, Worker
from oca.http import conditions
from oca.http.cmcd import Said, cmcd_of
from oca.http.ranges import Span, first_wanted, single_span
from oca.http.refusal import Refused
from oca.http.replies import date_line, preflight, refusal
from oca.http.request import Request, parse_head
from oca.http.target import canonical_path, path_and_query
from wire.access import split_path

if TYPE_CHECKING:
    from oca.edge.access import Gate

_RECV_BYTES: Final = 16 * 1024
_LINGER: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024
_TURN_BYTES: Final = 8 * 1024 * 1024
"""Sent to one client before the others get their turn."""
_CHUNK_BYTES: Final = 2 * 1024 * 1024
"""Sent or probed at once."""
_REOPENS: Final = 3
_RETRIES: Final = 3
_NOT_HELD: Final = "this is not held here, and was asked for only if it is"
"""Times that a block is asked for elsewhere, and then tried again because the keeper says that it can be read."""
_HDD: Final = PLACES.index(Place.HDD)
_ABORT: Final = struct.pack("ii", 1, 0)
# The client is gone, or (the last two) we are out of descriptors and can do nothing better than to end this one.
_GONE: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH}
)


class State(Enum):
    IDLE = 0
    READING = 1
    WAITING = 2
    SENDING = 3
    LINGERING = 4
    CLOSED = 5
    SHAKING = 6


class Connection:
    __slots__ = (
        "_asked",
        "_begun",
        "_buffer",
        "_cookie",
        "_copy",
        "_denied",
        "_dynamic",
        "_end_seen",
        "_first_byte_due",
        "_gate",
        "_has_reader",
        "_has_writer",
        "_held",
        "_lingered",
        "_loop",
        "_mark_at",
        "_mark_sent",
        "_number",
        "_outcome",
        "_paced_bps",
        "_persists",
        "_pos",
        "_receive",
        "_reopens",
        "_request",
        "_request_at",
        "_rest",
        "_said",
        "_send",
        "_send_file",
        "_sent",
        "_sock",
        "_state",
        "_status",
        "_stop",
        "_text",
        "_unprobed",
        "_unreadable",
        "_view",
        "_viewer",
        "_worker",
        "_wounded",
        "deadline",
    )

    def __init__(
        self, sock: socket.socket, worker: Worker, loop: asyncio.AbstractEventLoop, gate: Gate | None = None
    ) -> None:
        """`gate`: who asks it; None: everybody is let in."""
        self._sock = sock
        self._worker = worker
        self._loop = loop
        self._gate = gate
        self._number = sock.fileno()
        # How bytes come and go: the socket's own ways, unless TLS is in between.
        self._receive: Callable[[int], bytes] = sock.recv
        self._send: Callable[..., int] = sock.send
        self._send_file: Callable[[int, int, int], int] = partial(os.sendfile, self._number)
        self._viewer = next(worker.viewers)
        self._buffer = b""
        self._state = State.IDLE
        self.deadline = time.monotonic() + worker.http.idle_timeout
        """Moment (monotonic) after which `expire` is called."""
        self._end_seen = False
        self._has_reader = True
        self._has_writer = False
        self._lingered = 0
        # The response under way:
        self._request: Request | None = None
        self._request_at = 0.0
        self._persists = True
        self._said: Said | None = None
        """What the player said of itself with the request."""
        self._dynamic = b""
        """The header line that it is told in return."""
        self._paced_bps = 0
        """How fast the kernel sends at most; 0: as fast as it can."""
        self._cookie = b""
        """The header lines that renew the viewer's token."""
        self._held: Held | None = None
        self._status = 0
        self._outcome = Outcome.HIT
        self._first_byte_due = False
        self._text: bytes | memoryview = b""
        self._pos = 0
        self._stop = 0
        self._rest: deque[bytes | Span] | None = None
        self._view: BlockView | None = None
        self._begun = 0
        """Where the span under way began."""
        self._asked: tuple[int, Job] | None = None
        """The device that was asked for a cold extent or block, and what it was asked."""
        self._copy: Copy | None = None
        """The block at `_pos` in memory of this worker's own."""
        self._unprobed = -1
        """The block that is sent whether its pages are still there or not: the worker's own memory is used up."""
        self._wounded: set[int] | None = None
        """Extents that a device can't give."""
        self._unreadable = -1
        """The block that its device did not give in time: it comes from elsewhere, the next one is tried again."""
        self._denied = (-1, 0)
        """The block that could not be read last, and how often."""
        self._reopens = 0
        self._sent = 0
        self._mark_at = 0.0
        self._mark_sent = 0
        loop.add_reader(self._number, self.readable)

    # --- Reading ------------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        try:
            received = self._receive(_RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not received:
            self._ended_by_client()
            return
        state = self._state
        if state is State.IDLE:
            self._request_at = time.monotonic()
            self._serve(received)
        elif state is State.READING:
            self._serve(self._buffer + received)
        elif state is State.LINGERING:
            self._lingered += len(received)
            if self._lingered > _LINGER_BYTES:
                self.close()
        else:
            # Pipelined while a response is under way. A little is kept, then the client must wait.
            self._buffer += received
            if len(self._buffer) > self._worker.http.max_header_bytes:
                self._pause_reading()

    def _ended_by_client(self) -> None:
        """The client sends no more. It may still read (a half-closed connection gets its whole response)."""
        self._end_seen = True
        if self._state in (State.WAITING, State.SENDING):
            self._persists = self._persists and bool(self._buffer)
            self._pause_reading()
        else:
            self.close()

    def _pause_reading(self) -> None:
        if self._has_reader:
            self._has_reader = False
            self._loop.remove_reader(self._number)

    def _serve(self, received: bytes) -> None:
        """Answer what was received: zero, one or several requests, one after the other."""
        while True:
            if received.startswith(b"\r\n"):
                # RFC 9112 section 2.2: an empty line before a request is skipped.
                received = received[2:] if len(received) > 2 else b""
            end = received.find(b"\r\n\r\n")
            if end < 0:
                self._await_rest(received)
                return
            if end + 4 > self._worker.http.max_header_bytes:
                self._too_large(received)
                return
            self._buffer = received[end + 4 :]
            try:
                request = parse_head(received[: end + 4], self._worker.http.max_header_fields)
                self._respond(request)
            except Refused as refused:
                self._refuse(refused)
            if self._state is not State.IDLE or not self._buffer:
                return
            received, self._buffer = self._buffer, b""
            self._request_at = time.monotonic()

    def _await_rest(self, received: bytes) -> None:
        if len(received) > self._worker.http.max_header_bytes:
            self._too_large(received)
            return
        self._buffer = received
        if not received:
            self._state = State.IDLE
        elif self._state is not State.READING:
            self._state = State.READING
            self.deadline = time.monotonic() + self._worker.http.header_timeout
        if self._end_seen:
            self.close()

    def _too_large(self, received: bytes) -> None:
        if b"\r\n" in received[: self._worker.http.max_header_bytes]:
            status, what = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the header is"
        else:
            status, what = HTTPStatus.REQUEST_URI_TOO_LONG, "the request target is"
        self._buffer = b""
        self._refuse(Refused(status, f"{what} larger than {int(self._worker.http.max_header_bytes)} bytes"))

    # --- Deciding -----------------------------------------------------------------------------------------------------

    def _respond(self, request: Request) -> None:
        worker = self._worker
        fields = request.fields
        self._request = request
        self._persists = request.persists and not worker.is_leaving
        target = request.target
        if request.method == b"OPTIONS":
            self._answer_options(target)
            return
        if fields.has_body:
            raise Refused(HTTPStatus.BAD_REQUEST, "a GET or HEAD with a body is not accepted")
        if fields.cdn_loop is not None and worker.is_loop(fields.cdn_loop):
            # Of a known object as well: its blocks may be on their way here through the one who asks.
            raise Refused(HTTPStatus.LOOP_DETECTED, "this request has been here before (CDN-Loop)", closes=False)
        query = b""
        if b"?" not in target and target.startswith(b"/"):
            raw_path = target
        else:
            raw_path, query = path_and_query(target)
        if query or fields.cmcd is not None or self._said is not None or self._paced_bps:
            self._listen(query, fields.cmcd)
        if self._gate is not None:
            raw_path, self._cookie = self._gate.admit(request, self._sock)
        if fields.is_only_if_cached:
            held = worker.lookup.for_peer(canonical_path(raw_path))
        else:
            held = worker.lookup.remembered(raw_path)
        if held is None and self._gate is None:
            # Players may come with a token where none is needed: those that were sent here before that was so.
            token, raw_path = split_path(raw_path)
            if token is not None:
                held = worker.lookup.remembered(raw_path)
        if held is None:
            path = canonical_path(raw_path)
            if fields.is_only_if_cached:
                raise Refused(HTTPStatus.GATEWAY_TIMEOUT, _NOT_HELD, closes=False)
            worker.tally.words[Count.LOOKUPS] += 1
            held = worker.lookup.find(raw_path, path)
            if held is None:
                self._open(path)
                return
        if self._said is not None:
            worker.viewing.heard(self._said, held)
            if self._said.next_object:
                worker.viewing.bring_next(self._said, held.record.path)
        now = time.time()
        if now < held.fresh_until:
            if request.method == b"GET" and not self._cookie:
                size = held.record.size
                if not fields.is_conditional:
                    if size and self._send_hit(held, 0, size, 200, now):
                        return
                elif fields.is_only_ranged and fields.range is not None:
                    span = single_span(fields.range, size)
                    if span is not None and self._send_hit(held, *span, 206, now):
                        return
            self._decide(held, Outcome.HIT, b"; hit", now)
        elif now < held.fresh_until + held.record.stale_while_revalidate:
            worker.courier.refresh(held.record.path)
            ttl = b"; hit; ttl=-%d; detail=stale-while-revalidate" % (now - held.fresh_until + 1)
            self._decide(held, Outcome.STALE, ttl, now)
        else:
            self._open(held.record.path)

    def _listen(self, query: bytes, headers: bytes | None) -> None:
        """Hear what the player says of itself with this request, and set the pace of the answer by it."""
        viewing = self._worker.viewing
        assert self._request is not None
        said = self._said = cmcd_of(query, headers) if self._request.method == b"GET" else None
        self._dynamic = b"" if said is None else viewing.line(self._sock)
        self._paced_bps = viewing.pace(self._sock, said, self._paced_bps)

    def _answer_options(self, target: bytes) -> None:
        if target != b"*":
            canonical_path(path_and_query(target)[0])
        assert self._request is not None
        self._outcome, self._status = Outcome.PREFLIGHT, 204
        self._begin(preflight() + self._common(b""), 0, 0)

    def _open(self, path: str) -> None:
        """Have the keeper say what `path` is; `opened` or `open_refused` goes on."""
        assert self._request is not None
        fields = self._request.fields
        if fields.is_only_if_cached:
            raise Refused(HTTPStatus.GATEWAY_TIMEOUT, _NOT_HELD, closes=False)
        start: int | None = 0
        if self._request.method == b"HEAD":
            start = None
        elif fields.range is not None:
            start = first_wanted(fields.range)
        self._wait()
        self._worker.courier.open(path, start, fields.cdn_loop or b"", self)

    def opened(self, answer: ipc.Opened) -> None:
        """The keeper knows the object."""
        if self._held is not None:
            self._reopened(answer)
            return
        record = answer.record
        asked = b"; fwd-status=%d" % answer.fwd_status if answer.fwd_status else b""
        if record.status != 200:
            source = b"; fwd=miss" + asked if asked else b"; hit"
            self._answer_negative(record.status, source)
            return
        held = self._worker.lookup.from_keeper(answer.key, record)
        if self._said is not None:
            self._worker.viewing.heard(self._said, held)
            if self._said.next_object:
                self._worker.viewing.bring_next(self._said, record.path)
        stored = b"; stored" if record.storable else b""
        try:
            match answer.outcome:
                case "hit":
                    self._decide(held, Outcome.HIT, b"; hit", time.time())
                case "revalidated":
                    self._decide(held, Outcome.REVALIDATED, b"; fwd=stale" + asked, time.time())
                case "stale":
                    self._decide(held, Outcome.STALE, b"; fwd=stale; detail=no-source-answered", time.time())
                case _:
                    self._decide(held, Outcome.MISS, b"; fwd=miss" + asked + stored, time.time())
        except Refused as refused:
            self._refuse(refused)

    def open_refused(self, status: int, reason: str) -> None:
        self._give_up(HTTPStatus(status), reason)

    def _give_up(self, status: HTTPStatus, reason: str) -> None:
        """The bytes can't be had: say so if nothing was sent yet, else cut."""
        if self._sent:
            self._break_off()
            return
        self._let_go()
        self._refuse(Refused(status, reason, closes=False), Outcome.FAILED)

    def _let_go(self) -> None:
        """Forget the object of the response under way."""
        if self._asked is not None:
            self._leave_disk()
        if self._view is not None:
            self._worker.courier.leave(self._view, self)
            self._view = None
        self._held = None
        self._rest = None
        self._copy = None
        self._unprobed = -1
        self._wounded = None
        self._unreadable = -1
        self._denied = (-1, 0)

    def _answer_negative(self, status: int, source: bytes) -> None:
        self._outcome, self._status = Outcome.NEGATIVE, status
        head, body = refusal(status, "this object is not at the origin")
        assert self._request is not None
        common = self._common(b"Cache-Status: " + self._worker.id + source + b"\r\n")
        self._begin(head + common + (b"" if self._request.method == b"HEAD" else body), 0, 0)

    def _decide(self, held: Held, outcome: Outcome, cache_status: bytes, now: float) -> None:
        """Evaluate preconditions and ranges, and begin the answer about `held`."""
        request = self._request
        assert request is not None
        record = held.record
        heads = held.heads
        is_head = request.method == b"HEAD"
        verdict, spans = conditions.decide(
            request.fields,
            is_head=is_head,
            etag=record.etag,
            last_modified=record.last_modified,
            size=record.size,
            max_ranges=self._worker.http.max_ranges,
            now=now,
        )
        self._status = verdict.value
        start = stop = 0
        if verdict is conditions.Outcome.WHOLE:
            head = heads.whole()
            stop = 0 if is_head else record.size
        elif verdict is conditions.Outcome.PARTIAL:
            if len(spans) == 1:
                start, stop = spans[0]
                head = heads.single_part(spans[0])
            else:
                head, self._rest = self._multipart(held, spans)
        elif verdict is conditions.Outcome.NOT_MODIFIED:
            head = heads.not_modified()
        elif verdict is conditions.Outcome.PRECONDITION_FAILED:
            head = heads.precondition_failed()
        else:
            head = heads.unsatisfiable()
        if outcome is Outcome.HIT and (stop or self._rest):
            wanted = spans or [(start, stop)]
            if not all(self._worker.lookup.holds(held, *span) for span in wanted):
                if request.fields.is_only_if_cached:
                    raise Refused(HTTPStatus.GATEWAY_TIMEOUT, _NOT_HELD, closes=False)
                outcome = Outcome.MISS
                cache_status = b"; fwd=partial; stored"
        self._outcome = outcome
        self._held = held
        age = b"Age: %d\r\n" % record.age(now)
        if self._cookie and self._status in (200, 206):
            age += self._cookie
        self._begin(
            head + age + self._common(b"Cache-Status: " + self._worker.id + cache_status + b"\r\n"), start, stop
        )

    def _multipart(self, held: Held, spans: list[Span]) -> tuple[bytes, deque[bytes | Span]]:
        head, parts, closing = held.heads.multipart(spans, secrets.token_hex(12).encode())
        rest: deque[bytes | Span] = deque()
        for part, span in zip(parts, spans, strict=True):
            rest.append(part)
            rest.append(span)
        rest.append(closing)
        return head, rest

    def _common(self, lines: bytes) -> bytes:
        """The lines that end every head."""
        worker = self._worker
        request = self._request
        if worker.board.is_draining:
            self._persists = False
        if not self._persists:
            lines += b"Connection: close\r\n"
        elif request is not None and request.fields.keeps_alive:
            lines += b"Connection: keep-alive\r\n"
        lines += self._dynamic
        origin = None if request is None else request.fields.origin
        return date_line(int(time.time())) + worker.heads.cors_lines(origin) + lines + b"\r\n"

    def _refuse(self, refused: Refused, outcome: Outcome = Outcome.REFUSED) -> None:
        """Answer with a status and a sentence. What makes the next request untrustworthy ends the connection."""
        is_head = self._request is not None and self._request.method == b"HEAD"
        if refused.closes:
            self._persists = False
        self._outcome, self._status = outcome, refused.status
        head, body = refusal(refused.status, refused.reason)
        retry = b"Retry-After: 1\r\n" if refused.status >= 502 else b""
        self._begin(head + self._common(retry) + (b"" if is_head else body), 0, 0)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def _send_hit(self, held: Held, start: int, stop: int, status: int, now: float) -> bool:
        """An ordinary hit of bytes that lie warm in one open extent: head and first chunk with two calls.

        False if it is not as ordinary as that, and nothing was sent. The ordinary way (`_decide`, `_pump`) does the
        same at twice the cost in Python (measured: 9.6 against 5 microseconds).
        """
        worker = self._worker
        block, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        number, place = divmod(block, EXTENT_BLOCKS)
        extent = held.extents.get(number)
        if extent is None or not self._persists or not worker.heads.any_origin or worker.board.is_draining:
            return False
        wanted = ((2 << (last - block)) - 1) << place
        if extent.present & wanted != wanted or wanted >> EXTENT_BLOCKS:
            return False
        offset = start - number * EXTENT_BYTES
        count = min(stop - start, _CHUNK_BYTES, BLOCK_BYTES - start % BLOCK_BYTES)
        assert self._request is not None
        heads = held.heads
        head = b"%bAge: %d\r\n%b%b%b" % (
            heads.whole() if status == 200 else heads.single_part((start, stop)),
            held.record.age(now),
            b"Connection: keep-alive\r\n" if self._request.fields.keeps_alive else b"",
            self._dynamic,
            worker.hit_tail(int(now)),
        )
        if stop - start == count <= SMALL_BYTES:
            at = len(head)
            end = at + count
            scratch = worker.scratch_view
            scratch[:at] = head
            if extent.is_blind or worker.pools.reading[extent.rows[place]]:
                return False
            try:
                is_here = os.preadv(extent.fd, [scratch[at:end]], offset, extent.nowait) == count
            except OSError:
                is_here = False
            if not is_here:
                extent.doubt(place, worker.pools)
                return False
            self._outcome, self._status = Outcome.HIT, status
            worker.courier.touch(extent.slot)
            extent.shared_at = self._request_at
            try:
                sent = self._send(scratch[:end])
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return True
            if sent == end:
                moment = time.monotonic()
                worker.tally.hit(status, extent.place, count, moment - self._request_at)
                held.watched.hit(extent.place, count, held.begins_play and start == 0)
                self._at_rest(moment)
                return True
            if sent:
                worker.tally.answered(Outcome.HIT, status, time.monotonic() - self._request_at)
                held.watched.hit_began(held.begins_play and start == 0)
            else:
                self._first_byte_due = True
            self._sent = sent
            self._held = held
            self._text = head[sent:]
            self._begun = start
            self._pos, self._stop = start + max(0, sent - at), stop
            worker.tally.sent(extent.place, self._pos - start)
            held.watched.sent(extent.place, self._pos - start)
            self._await_writable()
            return True
        if not extent.is_warm(offset, count, worker.pools, self._request_at):
            return False
        extent.shared_at = self._request_at
        self._held = held
        self._outcome, self._status = Outcome.HIT, status
        self._text = head
        self._begun = start
        self._pos, self._stop = start, stop
        worker.courier.touch(extent.slot)
        try:
            # Not MSG_MORE: joined with the head, the pages lie across segments, and the kernel splits each again
            # (measured on loopback: a third more CPU for 4 MiB).
            self._sent = self._send(head)
            self._text = head[self._sent :]
            sent = 0 if self._text else self._send_file(extent.fd, offset, count)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno in _GONE:
                self.close()
                return True
            sent = 0  # `_pump` meets the same error, and heals it.
        moment = time.monotonic()
        if sent == stop - start:
            worker.tally.hit(status, extent.place, sent, moment - self._request_at)
            held.watched.hit(extent.place, sent, held.begins_play and start == 0)
            self._at_rest(moment)
            return True
        if self._sent:
            worker.tally.answered(Outcome.HIT, status, moment - self._request_at)
            held.watched.hit_began(held.begins_play and start == 0)
        else:
            self._first_byte_due = True
        worker.tally.sent(extent.place, sent)
        held.watched.sent(extent.place, sent)
        self._pos += sent
        self._sent += sent
        if 0 < sent < count:
            self._await_writable()
        else:
            self._pump()
        return True

    def _at_rest(self, now: float) -> None:
        """The whole answer went out with the request's own turn: nothing was begun that has to be let go."""
        if self._state is State.SENDING or self._state is State.WAITING or self._end_seen or self._view is not None:
            self._finished()
            return
        self._held = None
        self._request = None
        self._sent = 0
        self._state = State.IDLE
        self.deadline = now + self._worker.http.idle_timeout

    def _begin(self, head: bytes, start: int, stop: int) -> None:
        self._text = head
        self._pos = self._begun = start
        self._stop = stop
        self._first_byte_due = True
        self._pump()

    def _pump(self) -> None:
        """Send until the answer is finished, the socket is full, or bytes have to be waited for."""
        budget = _TURN_BYTES
        try:
            while True:
                if self._pos < self._stop:
                    # The head goes out with the first bytes, never before: until then an error can still be told.
                    sent = self._send_some()
                    if sent < 0:
                        return
                    budget -= sent
                elif self._text:
                    sent = self._send(self._text, socket.MSG_MORE if self._rest else 0)
                    self._count_first_byte()
                    self._sent += sent
                    self._text = self._text[sent:]
                elif self._rest:
                    piece = self._rest.popleft()
                    if isinstance(piece, bytes):
                        self._text = piece
                    else:
                        self._pos, self._stop = piece
                        self._begun = self._pos
                else:
                    self._finished()
                    return
                if budget <= 0:
                    self._await_writable()
                    return
        except BlockingIOError:
            self._await_writable()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.close()

    def _send_some(self) -> int:
        """Send the next bytes of the span, and the text before them. Returns how many; -1 if they must be waited for.

        Raises BlockingIOError if the socket is full, OSError if the client is gone.
        """
        found = self._locate()
        if found is None:
            return -1
        fd, offset, count, extent = found
        if extent is not None and fd == extent.fd and not self._is_ready(extent, offset, count):
            return self._read_cold(extent, offset // BLOCK_BYTES)
        if self._text:
            self._send_text()
        try:
            sent = self._send_file(fd, offset, count)
        except BlockingIOError:
            raise
        except OSError as error:
            if extent is None or error.errno in _GONE:
                raise
            self._wound(Damaged(extent, Fault.IO, str(error)))
            return 0
        if sent == 0:
            if extent is None:
                raise BrokenPipeError(errno.EPIPE, "the flight's memory ended early")
            self._wound(Damaged(extent, Fault.SHORT, "the file is shorter than the index says"))
            return 0
        self._pos += sent
        self._sent += sent
        assert self._held is not None
        if extent is None:
            self._worker.tally.passed_on(sent)
            self._held.watched.passed_on(sent)
            return sent
        self._worker.tally.sent(extent.place, sent)
        self._held.watched.sent(extent.place, sent)
        if extent.brought:
            self._consider_pages(extent)
        if sent < count:
            # The socket is full: asking again at once would only hear that.
            self._await_writable()
            return -1
        return sent

    def _is_ready(self, extent: OpenExtent, offset: int, count: int) -> bool:
        """Whether these bytes can be sent without waiting for the disk."""
        now = time.monotonic()
        extent.read_by(self._viewer, now)
        return extent.is_warm(offset, count, self._worker.pools, now) or self._unprobed == self._pos // BLOCK_BYTES

    def _consider_pages(self, extent: OpenExtent) -> None:
        """Have a block's pages given back if it was sent whole; whether they are is decided when it has arrived."""
        start = (self._pos - 1) // BLOCK_BYTES * BLOCK_BYTES
        block = start % EXTENT_BYTES // BLOCK_BYTES
        is_whole = self._begun <= start and self._pos == start + extent.length_of(block)
        if is_whole and extent.brought >> block & 1:
            self._worker.pages.sent(extent, block, self._viewer, time.monotonic())

    def _send_text(self) -> None:
        while self._text:
            sent = self._send(self._text)
            self._count_first_byte()
            self._sent += sent
            self._text = self._text[sent:]

    def _locate(self) -> tuple[int, int, int, OpenExtent | None] | None:
        """Where the bytes at `_pos` are: descriptor, offset, count, and the extent (None: a flight's memory).

        None if they are nowhere yet; then the keeper has been asked and `bytes_came` will be called.
        """
        held = self._held
        assert held is not None
        block = self._pos // BLOCK_BYTES
        number, place = divmod(block, EXTENT_BLOCKS)
        view = self._view
        if view is not None:
            if view.want.block == block and not view.is_kept:
                return self._locate_in(view)
            self._worker.courier.leave(view, self)
            self._view = None
            if view.is_kept:
                self._heed_kept(view.want.block, number)
        if self._denied[0] == block and self._denied[1] > _RETRIES:
            self._give_up(HTTPStatus.SERVICE_UNAVAILABLE, "the bytes can't be read, and are not to be had elsewhere")
            return None
        if block != self._unreadable and (self._wounded is None or number not in self._wounded):
            extent = self._worker.lookup.extent(held, number, place)
            if isinstance(extent, Lying):
                if self._open_cold(extent):
                    return None
                return self._locate()
            if extent is not None:
                offset = self._pos - number * EXTENT_BYTES
                until = min((block + 1) * BLOCK_BYTES, self._stop)
                if self._text or self._pos % EXTENT_BYTES == 0:
                    self._worker.courier.touch(extent.slot)
                count = min(until - self._pos, _CHUNK_BYTES)
                copy = self._copy
                if copy is not None and copy.extent is extent and copy.block == block % EXTENT_BLOCKS:
                    return copy.fd, offset % BLOCK_BYTES, count, extent
                return extent.fd, offset, count, extent
        if self._request is not None and self._request.fields.is_only_if_cached:
            self._give_up(HTTPStatus.GATEWAY_TIMEOUT, _NOT_HELD)  # It went while it was being sent.
            return None
        last_block = (self._stop - 1) // BLOCK_BYTES
        loop = b"" if self._request is None else self._request.fields.cdn_loop or b""
        self._view = self._worker.courier.view(
            held.key, held.record, block, last_block, loop, self, unreadable=block == self._unreadable
        )
        return self._locate_in(self._view)

    def _locate_in(self, view: BlockView) -> tuple[int, int, int, OpenExtent | None] | None:
        offset = self._pos - view.want.block * BLOCK_BYTES
        available = min(view.watermark, self._stop - view.want.block * BLOCK_BYTES) - offset
        if available <= 0 or view.fd < 0:
            view.waiters.add(self)
            self._wait()
            return None
        return view.fd, offset, available, None

    def _heed_kept(self, block: int, number: int) -> None:
        """The keeper says that a block lies on a device (now, or still, or elsewhere): look there again."""
        if self._wounded is not None:
            self._wounded.discard(number)
        if self._unreadable == block:
            self._unreadable = -1

    # --- Cold disks ---------------------------------------------------------------------------------------------------

    def _open_cold(self, lying: Lying) -> bool:
        """Have an extent opened on its device's own threads. False if it can't be now."""
        try:
            job = self._worker.pools.open(lying, self._was_opened)
        except GivenUp:
            self._do_without()
            return False
        self._asked = (lying.device, job)
        self._wait()
        return True

    def _read_cold(self, extent: OpenExtent, block: int) -> int:
        """Have a block read and verified on its device's own threads. -1 if it will be, 0 if it can't be now."""
        try:
            job = self._worker.pools.read(extent, block, self._was_read)
        except GivenUp:
            self._do_without()
            return 0
        self._worker.tally.words[Count.COLD_READS] += 1
        self._asked = (extent.device, job)
        self._wait()
        return -1

    def _was_opened(self, result: Answer) -> None:
        self._asked = None
        if isinstance(result, OpenExtent):
            assert self._held is not None
            self._worker.lookup.remember(self._held, self._pos // EXTENT_BYTES, result)
        else:
            self._heal(result)
        self._pump_safely()

    def _was_read(self, result: Answer) -> None:
        """The block at `_pos` is what was stored, or can't be had."""
        self._asked = None
        if isinstance(result, Copy):
            self._copy = result
            self._bring(result.extent)
        elif isinstance(result, OpenExtent):
            self._unprobed = self._pos // BLOCK_BYTES
            self._bring(result)
        else:
            self._heal(result)
        self._pump_safely()

    def _bring(self, extent: OpenExtent) -> None:
        """The block at `_pos` is in the page cache now. On a disk with one head, read on while it is sent."""
        block = self._pos // BLOCK_BYTES
        extent.brought |= 1 << block % EXTENT_BLOCKS
        following = (block + 1) % EXTENT_BLOCKS
        has_more = self._stop > (block + 1) * BLOCK_BYTES and following and extent.present >> following & 1
        if has_more and extent.place == _HDD:
            extent.brought |= 1 << following
            self._worker.pools.read_ahead(extent, following)

    def _leave_disk(self) -> None:
        """The answer is not wanted any more. (Only one of both waits.)"""
        assert self._asked is not None
        device, job = self._asked
        self._asked = None
        self._worker.pools.leave(device, job, self._was_read)
        self._worker.pools.leave(device, job, self._was_opened)

    def _heal(self, error: Answer) -> None:
        """Have bytes that a device does not give brought from elsewhere."""
        if isinstance(error, Damaged):
            self._wound(error)
        elif isinstance(error, GivenUp):
            self._do_without()
        else:
            # Descriptors ran out, which is no fault of the device: give back all that are only remembered.
            self._worker.lookup.forget_all()
            self._deny(self._pos // BLOCK_BYTES)

    def _do_without(self) -> None:
        """The device does not give the block in time: for this response it comes from elsewhere."""
        self._worker.tally.words[Count.HEALED_READS] += 1
        self._unreadable = self._pos // BLOCK_BYTES
        self._deny(self._unreadable)

    def _deny(self, block: int) -> None:
        """Count how often it could not be read: a keeper that insists that it can is not asked for ever."""
        self._denied = (block, self._denied[1] + 1 if self._denied[0] == block else 1)

    def _wound(self, damaged: Damaged) -> None:
        """A device can't give an extent: have it fetched from the ladder, for this response and for all others."""
        self._worker.tally.words[Count.HEALED_READS] += 1
        number = self._pos // EXTENT_BYTES
        assert self._held is not None
        self._held.extents.pop(number, None)
        self._worker.courier.lost(damaged)
        if self._wounded is None:
            self._wounded = set()
        self._wounded.add(number)

    def bytes_came(self) -> None:
        if self._state is State.WAITING and self._asked is None:
            self._pump_safely()

    def block_failed(self, *, unknown: bool, reason: str) -> None:
        view = self._view
        if view is None or self._held is None:
            return
        self._worker.courier.leave(view, self)
        self._view = None
        if unknown and self._reopens < _REOPENS:
            self._reopens += 1
            self._wait()
            loop = b"" if self._request is None else self._request.fields.cdn_loop or b""
            self._worker.courier.open(self._held.record.path, self._pos, loop, self)
        else:
            self._give_up(HTTPStatus.BAD_GATEWAY, reason)

    def _reopened(self, answer: ipc.Opened) -> None:
        """The keeper lost sight of our generation and looked again: go on only if the bytes are the same."""
        assert self._held is not None
        if self._held.record.is_same_version(answer.record):
            self._held = self._worker.lookup.from_keeper(answer.key, answer.record)
            self._pump_safely()
        elif self._sent == 0:
            self._let_go()
            self.opened(answer)
        else:
            # The object changed while it was being sent: two generations are never spliced.
            self._break_off()

    def _break_off(self) -> None:
        """The rest can't be had: cut, so that the client can't mistake it for the end."""
        self._worker.tally.words[Count.CUT_RESPONSES] += 1
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()

    def _pump_safely(self) -> None:
        if self._state is not State.CLOSED:
            self._pump()

    def _count_first_byte(self) -> None:
        if self._first_byte_due:
            self._first_byte_due = False
            self._worker.tally.answered(self._outcome, self._status, time.monotonic() - self._request_at)
            self._count_viewing()

    def _count_viewing(self) -> None:
        """Somebody watches if the answer has content."""
        held = self._held
        if held is None or not (self._stop or self._rest):
            return
        plays = held.begins_play and self._stop > 0 and self._begun == 0
        if self._outcome is Outcome.MISS:
            held.watched.miss_began(plays)
        else:
            held.watched.hit_began(plays)

    def _wait(self) -> None:
        self._state = State.WAITING
        self.deadline = time.monotonic() + self._worker.fetch.total_deadline + 5
        self._stop_writing()

    def _await_writable(self) -> None:
        if self._state is not State.SENDING:
            self._state = State.SENDING
            self._mark_at = time.monotonic()
            self._mark_sent = self._sent
            self.deadline = self._mark_at + self._worker.http.min_send_window
        if not self._has_writer:
            self._has_writer = True
            self._loop.add_writer(self._number, self._pump)

    def _stop_writing(self) -> None:
        if self._has_writer:
            self._has_writer = False
            self._loop.remove_writer(self._number)

    def _finished(self) -> None:
        """The answer is out. Go on with the next request, or end."""
        was_waiting = self._state in (State.SENDING, State.WAITING)
        if self._has_writer:
            self._stop_writing()
        self._let_go()
        self._reopens = 0
        self._request = None
        self._sent = 0
        if not self._persists or self._worker.is_stopping:
            self._linger()
            return
        if self._end_seen and not self._buffer:
            self.close()
            return
        self._state = State.IDLE
        self.deadline = time.monotonic() + self._worker.http.idle_timeout
        if not was_waiting:
            return  # `_serve` is below us and goes on with what was pipelined.
        if not self._has_reader and not self._end_seen:
            self._has_reader = True
            self._loop.add_reader(self._number, self.readable)
        if self._buffer:
            received, self._buffer = self._buffer, b""
            self._request_at = time.monotonic()
            self._serve(received)

    # --- Ending -------------------------------------------------------------------------------------------------------

    def _linger(self) -> None:
        """Say that nothing more comes, and give the client time to read: closing could destroy what was sent."""
        if self._end_seen:
            self.close()
            return
        self._state = State.LINGERING
        self.deadline = time.monotonic() + _LINGER
        self._buffer = b""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        if not self._has_reader:
            self._has_reader = True
            self._loop.add_reader(self._number, self.readable)

    def expire(self, now: float) -> None:
        """The deadline passed."""
        http = self._worker.http
        tally = self._worker.tally
        match self._state:
            case State.IDLE:
                tally.words[Count.IDLE_TIMEOUTS] += 1
                self.close()
            case State.READING:
                tally.words[Count.HEADER_TIMEOUTS] += 1
                self._buffer = b""
                self._refuse(Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not come in time"))
            case State.WAITING:
                self._worker.courier.forget_open(self)
                self._give_up(HTTPStatus.GATEWAY_TIMEOUT, "the bytes did not come in time")
            case State.SENDING:
                rate = (self._sent - self._mark_sent) / max(now - self._mark_at, 0.001)
                if rate < http.min_send_rate:
                    tally.words[Count.SLOW_CLIENTS] += 1
                    self._break_off()
                else:
                    self._mark_at, self._mark_sent = now, self._sent
                    self.deadline = now + http.min_send_window
            case _:
                self.close()

    @property
    def is_idle(self) -> bool:
        return self._state in (State.IDLE, State.LINGERING)

    def close(self) -> None:
        if self._state is State.CLOSED:
            return
        if self._state is State.WAITING:
            self._worker.courier.forget_open(self)
        self._state = State.CLOSED
        self._pause_reading()
        self._stop_writing()
        self._let_go()
        self._sock.close()
        worker = self._worker
        worker.connections.discard(self)
        worker.tally.words[Count.CONNECTIONS_OPEN] -= 1
