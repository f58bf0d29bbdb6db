"""HTTP/1.1 as RFC 9110 and 9112 have it, over raw sockets: strict with what comes in, exact with what goes out."""

import contextlib
import re
import ssl

import pytest

from tests.doubles.appliance import BLOCK, wait_until
from tests.doubles.authority import Authority

HOST = b"Host: films.example\r\n"


@pytest.fixture(scope="module", params=["http", "https"])
def tls(request, tmp_path_factory):
    """All of it holds over TLS as well. What an appliance's settings say of it, and how clients trust it."""
    if request.param == "http":
        return None
    authority = Authority(tmp_path_factory.mktemp("tls"))
    pair = authority.sign("an appliance", "pair.pem")
    return {"cert": pair, "key": pair}, authority.trusted()


def started(appliance, tls, **settings):
    if tls is not None:
        certificate, appliance.tls = tls
        listen = {**settings.get("listen", {}), "https": f"127.0.0.1:{appliance.tls_port}"}
        settings |= {"listen": listen, "certificate": [certificate]}
    return appliance.start(**settings)


@pytest.fixture(scope="module")
def appliance(tls, module_appliance, origin):
    return started(module_appliance(origin.url), tls, freshness={"manifest": "200 ms", "negative": "1 s"})


@pytest.fixture(scope="module")
def film(appliance, origin):
    """A small object that is held, and its bytes."""
    content = origin.put("/conformance/film.mp4", 20_000, etag='"film"', content_type="video/mp4")
    appliance.get("/conformance/film.mp4")
    appliance.wait_stored("/conformance/film.mp4")
    return content


FILM = "/conformance/film.mp4"


@pytest.fixture
def wire(appliance, film):
    with appliance.wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def hasty(tls, module_appliance, origin):
    """An appliance of little patience."""
    return started(
        module_appliance(origin.url),
        tls,
        http={
            "header_timeout": "300 ms",
            "idle_timeout": "300 ms",
            "min_send_rate": "1 GiB",
            "min_send_window": "300 ms",
            "max_connections": 8,
        },
        listen={"workers": 1},
    )


# --- Connections ------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(wire, film):
    targets = [(n * 7, n * 7 + 100 * n + 1) for n in range(60)]
    wire.send(
        b"".join(
            b"GET %b HTTP/1.1\r\n%bRange: bytes=%d-%d\r\n\r\n" % (FILM.encode(), HOST, start, stop - 1)
            for start, stop in targets
        )
    )
    for start, stop in targets:
        answer = wire.answer()
        assert answer.status == 206
        assert answer.body == film[start:stop]


def test_pipelined_hits_misses_refusals_and_heads_keep_their_order(appliance, origin, wire, film, path):
    content = origin.put(path, BLOCK + 5)
    wire.send(
        b"GET %b HTTP/1.1\r\n%b\r\n" % (FILM.encode(), HOST)
        + b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), HOST)
        + b"HEAD %b HTTP/1.1\r\n%b\r\n" % (FILM.encode(), HOST)
        + b"GET /no/such HTTP/1.1\r\n%b\r\n" % HOST
        + b"OPTIONS * HTTP/1.1\r\n%b\r\n" % HOST
        + b"GET %b HTTP/1.1\r\n%bIf-None-Match: *\r\n\r\n" % (FILM.encode(), HOST)
        + b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (FILM.encode(), HOST)
        + b"GET /never HTTP/1.1\r\n%b\r\n" % HOST
    )
    assert wire.answer().body == film
    assert wire.answer().body == content
    assert wire.answer(to_head=True)["Content-Length"] == str(len(film))
    assert wire.answer().status == 404
    assert wire.answer().status == 204
    assert wire.answer().status == 304
    last = wire.answer()
    assert last.body == film
    assert last["Connection"] == "close"
    wire.wait_closed()


def test_a_request_may_come_in_any_pieces(wire, film):
    for byte in f"\r\nGET {FILM} HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n".encode():
        wire.send(bytes([byte]))
    assert wire.answer().body == film
    text = f"GET {FILM} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 2
    for cut in range(1, len(text), 9):
        wire.send(text[:cut])
        wire.send(text[cut:])
        assert wire.answer().body == film
        assert wire.answer().body == film


def test_a_connection_is_kept_through_all_kinds_of_answers(wire, film):
    for _ in range(3):
        assert wire.get(FILM).body == film
        assert wire.get(FILM, Range="bytes=0-9").status == 206
        assert wire.get(FILM, Range="bytes=999999-").status == 416
        assert wire.get(FILM, If_None_Match='"film"').status == 304
        assert wire.get(FILM, If_Match='"x"').status == 412
        assert wire.get("/nothing/here").status == 404
        wire.ask(FILM, "HEAD")
        assert wire.answer(to_head=True).status == 200
        wire.ask(FILM, "OPTIONS")
        assert wire.answer().status == 204


def test_http_1_0_is_answered_and_closed_unless_it_asks_to_be_kept(appliance, wire, film):
    wire.send(f"GET {FILM} HTTP/1.0\r\n\r\n".encode())
    answer = wire.answer()
    assert (answer.version, answer.status, answer.body) == ("HTTP/1.1", 200, film)
    assert answer["Connection"] == "close"
    wire.wait_closed()
    with appliance.wire() as kept:
        for _ in range(2):
            kept.ask(FILM, version="1.0", Connection="keep-alive")
            answer = kept.answer()
            assert answer.body == film
            assert answer["Connection"] == "keep-alive"


def test_a_client_that_asks_for_close_gets_it(wire, film):
    answer = wire.get(FILM, Connection="TE, Close")
    assert (answer.body, answer["Connection"]) == (film, "close")
    wire.wait_closed()


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_a_half_closed_client_gets_its_whole_large_answer(appliance, origin, path, temperature):
    content = origin.put(path, 5 * BLOCK)
    if temperature == "warm":
        appliance.get(path)
        appliance.wait_stored(path)
    with appliance.wire() as wire:
        wire.ask(path)
        wire.half_close()
        assert wire.answer().body == content
        wire.wait_closed()


def test_a_half_closed_client_gets_everything_it_pipelined(appliance, origin, wire, film, path):
    content = origin.put(path, BLOCK + 5)
    wire.ask(path)
    wire.ask(FILM)
    wire.ask(FILM, Range="bytes=0-9")
    wire.half_close()
    assert wire.answer().body == content
    assert wire.answer().body == film
    assert wire.answer().body == film[:10]
    wire.wait_closed()


def test_half_of_a_request_and_then_the_end_is_dropped_in_silence(wire):
    wire.send(b"GET / HTTP/1.1\r\nHost: ")
    wire.half_close()
    wire.wait_closed()


def test_a_client_that_reads_slowly_gets_every_byte(appliance, origin, path):
    content = origin.put(path, 3 * BLOCK)
    with appliance.wire(receive_buffer=4096) as wire:
        wire.ask(path)
        assert wire.head().status == 200
        for at in range(0, len(content), 500_000):
            piece = content[at : at + 500_000]
            assert wire.read(len(piece)) == piece


# --- Deadlines and caps -----------------------------------------------------------------------------------------------


def test_a_head_that_does_not_end_gets_408(hasty):
    with hasty.wire() as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        answer = wire.answer()
        assert (answer.status, answer["Connection"]) == (408, "close")
        wire.wait_closed()
    assert hasty.metric("oca_client_timeouts_total", deadline="header") >= 1


def test_dripping_a_head_does_not_extend_its_deadline(hasty):
    with hasty.wire() as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n")

        def drip():
            wire.send(b"X: y\r\n")
            return not wire.is_silent()

        wait_until(drip, "the slow client is answered")
        assert wire.answer().status == 408


def test_an_idle_connection_is_closed_without_a_word(hasty, origin, path):
    content = origin.put(path, 10)
    with hasty.wire() as fresh, hasty.wire() as used:
        assert used.get(path).body == content
        fresh.wait_closed()
        used.wait_closed()


def test_a_client_that_takes_nothing_is_cut(hasty, origin, path):
    content = origin.put(path, 8 * BLOCK)
    hasty.get(path)
    hasty.wait_stored(path)
    with hasty.wire(receive_buffer=4096) as wire:
        wire.ask(path)
        wait_until(lambda: hasty.metric("oca_client_timeouts_total", deadline="slow") >= 1, "it is cut")
        got = wire.rest().partition(b"\r\n\r\n")[2]
        assert len(got) < len(content)
        assert content.startswith(got)


def test_connections_over_the_cap_are_closed_and_make_room_again(hasty, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, 10)
    wait_until(lambda: hasty.metric("oca_open_connections") == 0, "earlier connections are gone")
    held = [hasty.wire() for _ in range(8)]
    for wire in held:
        wire.ask(path)
    gate.wait_reached()
    wait_until(lambda: hasty.metric("oca_open_connections") == 8, "all are in")
    # Over TLS it is closed before the handshake.
    with contextlib.suppress(ssl.SSLError), hasty.wire() as over:
        over.wait_closed()
    assert hasty.metric("oca_refused_connections_total") >= 1
    gate.open()
    for wire in held:
        assert wire.answer().body == content
        wire.close()
    wait_until(lambda: hasty.get(path).body == content, "there is room again")


# --- Refusals ---------------------------------------------------------------------------------------------------------

BAD = [
    # Request lines.
    (b"GET /\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET\t/\tHTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET relative HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET ftp://a/b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET http:///b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /x#y HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    # Methods.
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", 405),
    (b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    (b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    # Hosts.
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x@a/b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    # Header lines.
    (b"GET / HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b": y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Range: bytes=0-1\r\nRange: bytes=5-6\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Expect: miracles\r\n\r\n", 417),
    # Framing: what a smuggler would send.
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 400),
    # Paths.
    (b"GET /../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a/../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /%2e%2e/etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a/%2E%2e/%2e./etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /..%2fetc HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a%00b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a%0d%0aX:%20y HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a% HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a%ff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a\0b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"OPTIONS /../x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
]


@pytest.mark.parametrize(("request_bytes", "status"), BAD, ids=[str(raw[:60]) for raw, _ in BAD])
def test_what_is_wrong_is_refused_and_closed_and_nothing_is_fetched(appliance, origin, request_bytes, status):
    asked = len(origin.asked)
    with appliance.wire() as wire:
        # What follows on the connection can't be trusted and must not be answered.
        wire.send(request_bytes + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = wire.answer()
        assert answer.status == status
        assert answer["Connection"] == "close"
        assert answer["Cache-Control"] is None
        if status == 405:
            assert answer["Allow"] == "GET, HEAD, OPTIONS"
        wire.wait_closed()
    assert len(origin.asked) == asked


def test_a_target_that_is_too_long_gets_414(wire, origin):
    asked = len(origin.asked)
    wire.send(b"GET /" + b"a" * 20_000)
    assert wire.answer().status == 414
    wire.wait_closed()
    assert len(origin.asked) == asked


def test_a_header_that_is_too_large_gets_431(appliance, wire, origin):
    asked = len(origin.asked)
    wire.send(b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n")
    assert wire.answer().status == 431
    wire.wait_closed()
    with appliance.wire() as many:
        many.send(b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200 + b"\r\n")
        assert many.answer().status == 431
        many.wait_closed()
    assert len(origin.asked) == asked


def test_a_refusal_is_read_even_by_a_client_that_goes_on_sending(appliance):
    with appliance.wire() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\n" + HOST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
        assert wire.answer().status == 405
        wire.wait_closed()


def test_refusals_are_counted_as_such(appliance, wire):
    before = appliance.metric("oca_requests_total", outcome="refused", status_class="4xx")
    wire.send(b"nonsense\r\n\r\n")
    assert wire.answer().status == 400
    assert appliance.metric("oca_requests_total", outcome="refused", status_class="4xx") == before + 1


# --- Forms of the target and of the answer ----------------------------------------------------------------------------


def test_absolute_form_names_the_same_object(wire, film):
    for target in (f"http://films.example{FILM}", f"HTTP://other:81{FILM}?token=1", f"https://a{FILM}"):
        assert wire.get(target).body == film


def test_an_answer_to_head_has_the_head_of_the_get_and_no_body(wire, film):
    get = wire.get(FILM)
    wire.ask(FILM, "HEAD")
    head = wire.answer(to_head=True)
    varying = {"Date", "Age"}
    assert [f for f in get.fields if f[0] not in varying] == [f for f in head.fields if f[0] not in varying]
    wire.ask("/nothing/here", "HEAD")
    assert wire.answer(to_head=True).status == 404
    assert wire.get(FILM).body == film


def test_every_answer_has_the_lines_it_must_have_once(wire, film):
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=0-9,50-59"}, {"If_None_Match": "*"}):
        answer = wire.get(FILM, **headers)
        names = [name.lower() for name, _ in answer.fields]
        assert len(names) == len(set(names))
        assert "date" in names
        assert "cache-status" in names
        assert answer["ETag"] == '"film"'
        assert re.fullmatch(r"\d+", answer["Age"])
        assert answer["Cache-Status"] == "oca-test; hit"
        assert ("content-length" in names) == (answer.status != 304)


def test_players_on_any_page_may_ask_and_read(wire, film):
    wire.ask(
        FILM,
        "OPTIONS",
        Origin="https://play.example",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="range, cmcd-request",
    )
    answer = wire.answer()
    assert answer.status == 204
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert "GET" in answer["Access-Control-Allow-Methods"]
    allowed = {name.strip().lower() for name in answer["Access-Control-Allow-Headers"].split(",")}
    assert {"range", "cmcd-request"} <= allowed
    assert int(answer["Access-Control-Max-Age"]) > 0
    for headers in ({}, {"Range": "bytes=0-9"}, {"If_None_Match": "*"}, {"Range": "bytes=999999-"}):
        answer = wire.get(FILM, Origin="https://play.example", **headers)
        assert answer["Access-Control-Allow-Origin"] == "*"
        assert "Content-Range" in answer["Access-Control-Expose-Headers"]
        assert answer["Timing-Allow-Origin"] == "*"
    # A player can only tell its viewer what went wrong if it may read the answer.
    assert wire.get("/nothing/here", Origin="https://play.example")["Access-Control-Allow-Origin"] == "*"


def test_listed_pages_are_echoed_and_others_are_told_nothing(make_appliance, origin, path):
    one = make_appliance().start(cors={"allow_origins": ["https://play.example"]}, listen={"workers": 1})
    origin.put(path, 10)
    for _ in range(2):
        listed = one.get(path, Origin="https://play.example")
        assert listed["Access-Control-Allow-Origin"] == "https://play.example"
        assert listed["Vary"] == "Origin"
        other = one.get(path, Origin="https://evil.example")
        assert other["Access-Control-Allow-Origin"] is None
        assert other["Vary"] == "Origin"
        one.wait_landed()


def test_names_from_the_network_never_reach_the_disk(appliance, origin):
    for name in ("/names/…é\\?*", "/names/con.mp4", "/names/" + "x" * 3000, "/names//double", "/names/a;b&c"):
        content = origin.put(name, 100)
        quoted = "".join(f"%{byte:02X}" if byte > 126 or chr(byte) in ' ?*\\"' else chr(byte) for byte in name.encode())
        answer = appliance.get(quoted)
        assert (answer.status, answer.body) == (200, content)
        appliance.wait_landed()
    names = {part for file in appliance.extent_files() for part in file.relative_to(appliance.devices[0]).parts}
    assert all(re.fullmatch(r"[0-9a-f]{2}|[0-9a-f]{56}", name) for name in names - {"extents"})
