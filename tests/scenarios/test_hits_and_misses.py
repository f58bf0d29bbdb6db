"""What a player gets, cold and warm, is what the origin holds; and it is asked for no oftener than it must be."""

import random
from email.parser import BytesParser

import pytest

from tests.doubles.appliance import BLOCK, EXTENT, wait_until
from tests.doubles.origin import LONG_AGO, reset_at_once

SIZES = [0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 12345]


def parts_of(answer):
    """The parts of a multipart/byteranges answer: (Content-Range, bytes)."""
    head = f"Content-Type: {answer['Content-Type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.body)
    assert message.is_multipart()
    boundary = message.get_boundary().encode()
    # The email parser mends line endings within parts, so the bytes are cut out by hand.
    pieces = answer.body.split(b"\r\n--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    parts = []
    for piece in pieces[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        parts.append((lines["Content-Range"], body))
    return parts


@pytest.mark.parametrize("size", SIZES)
def test_a_miss_and_then_a_hit_give_every_byte(appliance, origin, path, size):
    content = origin.put(path, size)
    cold = appliance.get(path)
    assert (cold.status, cold["Content-Length"]) == (200, str(size))
    assert cold.body == content
    assert cold.cache_status == "oca-test; fwd=miss; fwd-status=206; stored" or size == 0
    appliance.wait_landed()
    asked = origin.count(path)
    warm = appliance.get(path)
    assert warm.body == content
    assert warm.is_hit
    assert origin.count(path) == asked


def test_an_object_of_more_than_one_extent_is_the_same_cold_and_warm_and_lies_in_two_files(appliance, origin, path):
    content = origin.put(path, EXTENT + BLOCK + 999)
    assert appliance.get(path).body == content
    appliance.wait_stored(path)
    assert [extent["number"] for extent in appliance.held(path)["extents"]] == [0, 1]
    warm = appliance.get(path)
    assert warm.is_hit
    assert warm.body == content
    across = appliance.span(path, EXTENT - 1000, EXTENT + 1000)
    assert across.body == content[EXTENT - 1000 : EXTENT + 1000]


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_any_single_range_is_that_slice(appliance, origin, path, temperature):
    size = 2 * BLOCK + 777
    content = origin.put(path, size)
    if temperature == "warm":
        assert appliance.get(path).body == content
        appliance.wait_stored(path)
    dice = random.Random(7)
    edges = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, size - 1]
    for number in range(24):
        first = dice.choice(edges) if number % 2 else dice.randrange(size)
        last = min(size - 1, first + dice.choice([0, 1, 100, 65_535, BLOCK, size]))
        answer = appliance.get(path, Range=f"bytes={first}-{last}")
        assert answer.status == 206
        assert answer["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert answer.body == content[first : last + 1]
    for header, start in [("bytes=-1", size - 1), ("bytes=-5000", size - 5000), (f"bytes={BLOCK}-", BLOCK)]:
        answer = appliance.get(path, Range=header)
        assert answer.status == 206
        assert answer.body == content[start:]


@pytest.mark.parametrize("header", ["bytes=-1000", "bytes=-99999999999", "bytes=-1"])
def test_a_suffix_of_an_object_not_seen_before_is_right(appliance, origin, path, header):
    content = origin.put(path, BLOCK + 5000)
    answer = appliance.get(path, Range=header)
    assert answer.status == 206
    assert answer.body == content[-int(header.partition("-")[2]) :]


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_several_ranges_come_as_parts_in_the_order_asked(appliance, origin, path, temperature):
    size = BLOCK + 50_000
    content = origin.put(path, size, content_type="video/mp4")
    if temperature == "warm":
        appliance.get(path)
        appliance.wait_stored(path)
    spans = [(BLOCK - 10, BLOCK + 10), (5, 1005), (size - 1, size)]
    answer = appliance.get(path, Range="bytes=" + ", ".join(f"{a}-{b - 1}" for a, b in spans))
    assert answer.status == 206
    assert answer["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert parts_of(answer) == [(f"bytes {a}-{b - 1}/{size}", content[a:b]) for a, b in spans]


def test_overlapping_ranges_never_amplify(appliance, origin, path):
    content = origin.put(path, 100_000)
    answer = appliance.get(path, Range="bytes=" + ",".join(["0-"] * 30))
    assert answer.status == 206
    assert answer.body == content
    many = appliance.get(path, Range="bytes=" + ",".join(f"{i}-{i}" for i in range(0, 1000, 2)))
    assert many.status == 416
    assert many.body == b""


@pytest.mark.parametrize("header", ["lines=0-9", "bytes=5-2", "bytes=x-y", "nonsense"])
def test_a_range_that_does_not_apply_gives_everything(appliance, origin, path, header):
    content = origin.put(path, 5000)
    answer = appliance.get(path, Range=header)
    assert (answer.status, answer.body) == (200, content)


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_head_tells_the_length_ignores_range_and_fetches_no_film(appliance, origin, path, temperature):
    size = 2 * BLOCK
    origin.put(path, size, content_type="video/mp4")
    if temperature == "warm":
        appliance.get(path)
        appliance.wait_stored(path)
    gets = len(origin.ranges(path))
    answer = appliance.get(path, "HEAD", Range="bytes=0-9")
    assert (answer.status, answer["Content-Length"], answer["Content-Type"]) == (200, str(size), "video/mp4")
    assert answer["Content-Range"] is None
    assert len(origin.ranges(path)) == gets


def test_headers_of_the_origin_are_replayed(appliance, origin, path):
    origin.put(
        path,
        1000,
        etag='"v1"',
        content_type="video/iso.segment",
        cache_control="public, max-age=600",
        content_language="fr",
        x_secret="inside",
        set_cookie="a=b",
        connection="x-secret",
    )
    for _ in range(2):
        answer = appliance.get(path)
        assert answer["ETag"] == '"v1"'
        assert answer["Last-Modified"] == LONG_AGO
        assert answer["Content-Type"] == "video/iso.segment"
        assert answer["Cache-Control"] == "public, max-age=600"
        assert answer["Content-Language"] == "fr"
        assert answer["Accept-Ranges"] == "bytes"
        assert answer["X-Secret"] is None
        assert answer["Set-Cookie"] is None
        assert len(answer.headers.get_all("Date")) == 1
        assert len(answer.headers.get_all("Content-Length")) == 1
        assert answer["Access-Control-Allow-Origin"] == "*"
        appliance.wait_landed()


def test_film_without_cache_control_is_said_to_be_immutable_for_a_year(appliance, origin, path):
    origin.put(path, 10)
    assert appliance.get(path)["Cache-Control"] == "public, max-age=31536000, immutable"


def test_age_counts_on_from_what_the_origin_said(appliance, origin, path):
    origin.put(path, 10, cache_control="max-age=1000", age="100")
    assert 100 <= int(appliance.get(path)["Age"]) < 200
    appliance.wait_landed()
    assert 100 <= int(appliance.get(path)["Age"]) < 200


@pytest.mark.parametrize("temperature", ["cold", "warm"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_None_Match": '"tag"'}, 304),
        ({"If_None_Match": 'W/"tag"'}, 304),
        ({"If_None_Match": '"other", "tag"'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"other"'}, 200),
        ({"If_Modified_Since": LONG_AGO}, 304),
        ({"If_Modified_Since": LONG_AGO, "If_None_Match": '"other"'}, 200),
        ({"If_Match": '"tag"'}, 200),
        ({"If_Match": 'W/"tag"'}, 412),
        ({"If_Match": '"other"'}, 412),
        ({"If_Unmodified_Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 412),
        ({"If_Range": '"tag"', "Range": "bytes=0-9"}, 206),
        ({"If_Range": 'W/"tag"', "Range": "bytes=0-9"}, 200),
        ({"If_Range": '"other"', "Range": "bytes=0-9"}, 200),
        ({"If_Range": LONG_AGO, "Range": "bytes=0-9"}, 206),
        ({"If_Match": '"other"', "Range": "bytes=0-9"}, 412),
        ({"If_None_Match": '"tag"', "Range": "bytes=0-9"}, 304),
        ({"Range": "bytes=5000-"}, 416),
        ({"Range": "bytes=-0"}, 416),
    ],
)
def test_preconditions_are_decided_alike_cold_and_warm(appliance, origin, path, headers, status, temperature):
    content = origin.put(path, 5000, etag='"tag"')
    if temperature == "warm":
        appliance.get(path)
        appliance.wait_stored(path)
    answer = appliance.get(path, **headers)
    assert answer.status == status
    expected = {200: content, 206: content[:10]}
    assert answer.body == expected.get(status, b"")
    if status == 416:
        assert answer["Content-Range"] == "bytes */5000"


def test_a_range_behind_the_end_of_an_object_not_seen_before_gets_416_with_its_size(appliance, origin, path):
    origin.put(path, 5000)
    answer = appliance.get(path, Range=f"bytes={3 * BLOCK}-")
    assert (answer.status, answer["Content-Range"]) == (416, "bytes */5000")


def test_query_strings_do_not_split_the_cache(appliance, origin, path):
    content = origin.put(path, 3000)
    for query in ("", "?token=a", "?token=b&CMCD=bl%3D100", "?x=%2F..%2F"):
        answer = appliance.get(path + query)
        assert answer.body == content
        appliance.wait_landed()
    assert len(origin.ranges(path)) == 1


def test_spellings_of_one_path_are_one_object(appliance, origin):
    content = origin.put("/spelled/a b/é.mp4", 3000)
    for spelling in (
        "/spelled/a%20b/%C3%A9.mp4",
        "/spelled/./a%20b/%c3%a9.mp4",
        "/spelled/x/../a%20b/%C3%A9.mp4",
        "/spelled/%2e/a%20b/%C3%A9%2Emp4",
    ):
        answer = appliance.get(spelling)
        assert (answer.status, answer.body) == (200, content)
        appliance.wait_landed()
    assert len(origin.ranges("/spelled/a b/é.mp4")) == 1


def test_what_was_stored_is_served_after_a_restart_without_the_origin(make_appliance, second_origin):
    one = make_appliance(second_origin.url).start()
    films = {f"/kept/{size}": second_origin.put(f"/kept/{size}", size) for size in SIZES[1:]}
    for path, content in films.items():
        assert one.get(path).body == content
    for path in films:
        one.wait_stored(path)
    one.stop()
    second_origin.drop_connections()
    one.start()
    for path, content in films.items():
        answer = one.get(path)
        assert answer.is_hit
        assert answer.body == content
    # Nothing named by the network reaches the disk.
    for file in one.extent_files():
        assert int(file.name, 16) >= 0
        assert len(file.name) == 56


# --- Negative answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_of_the_origin_is_remembered_briefly_and_no_longer(appliance, origin, path, status):
    origin.put(path, 10, status=status)
    first = appliance.get(path)
    assert first.status == status
    assert "fwd=miss" in first.cache_status
    for _ in range(20):
        assert appliance.get(path).status == status
    assert origin.count(path) < 21
    content = origin.put(path, 10)
    wait_until(lambda: appliance.get(path).body == content, "the refusal is forgotten")


# --- Freshness --------------------------------------------------------------------------------------------------------


def test_a_manifest_is_short_lived_and_revalidated_by_its_validator(appliance, origin):
    path = "/freshness/live.m3u8"
    old = origin.put(path, b"#EXTM3U one\n", last_modified=None)
    assert appliance.get(path).body == old
    revalidated = wait_until(
        lambda: (a := appliance.get(path)) and "fwd=stale" in a.cache_status and a, "it went stale"
    )
    assert revalidated.body == old
    assert "fwd-status=304" in revalidated.cache_status
    assert origin.asked[-1].headers["if-none-match"] == revalidated["ETag"]
    new = origin.put(path, b"#EXTM3U one and two\n", last_modified=None)
    changed = wait_until(
        lambda: (answer := appliance.get(path)) and answer.body != old and answer, "the change is seen"
    )
    assert changed.body == new
    assert changed["ETag"] != revalidated["ETag"]


def test_a_film_that_changed_at_its_origin_is_never_mixed_from_two_versions(appliance, origin, path):
    size = 2 * BLOCK
    origin.put(path, size, version=1, cache_control="max-age=0")
    appliance.get(path)
    appliance.wait_stored(path)
    for version in range(2, 6):
        new = origin.put(path, size, version=version, cache_control="max-age=0")
        assert appliance.span(path, BLOCK - 5, BLOCK + 5).body == new[BLOCK - 5 : BLOCK + 5]
        assert appliance.get(path).body == new
    appliance.wait_stored(path)
    assert len(appliance.held(path)["extents"]) == 1


def test_stale_while_revalidate_answers_at_once_and_refreshes_behind(appliance, origin, path):
    old = origin.put(path, 100, version=1, cache_control="max-age=0, stale-while-revalidate=1000")
    assert appliance.get(path).body == old
    appliance.wait_stored(path)
    asked = origin.count(path)
    answer = appliance.get(path)
    assert answer.body == old
    assert "stale-while-revalidate" in answer.cache_status
    wait_until(lambda: origin.count(path) > asked, "the origin was asked behind the answer")
    new = origin.put(path, 100, version=2, cache_control="max-age=0, stale-while-revalidate=1000")
    wait_until(lambda: appliance.get(path).body == new, "the new version is served")


@pytest.mark.parametrize(
    ("directives", "is_served"),
    [
        ("max-age=0, stale-if-error=1000", True),
        ("max-age=0", True),
        ("max-age=0, must-revalidate", False),
        ("s-maxage=0", False),
        ("max-age=0, stale-if-error=0", False),
    ],
)
def test_stale_bytes_are_served_while_the_origin_is_gone_unless_it_forbade_that(
    appliance, origin, path, directives, is_served
):
    content = origin.put(path, 100, cache_control=directives)
    appliance.get(path)
    appliance.wait_stored(path)
    origin.lie(path, reset_at_once)
    answer = appliance.get(path)
    if is_served:
        assert (answer.status, answer.body) == (200, content)
        assert "fwd=stale" in answer.cache_status
    else:
        assert answer.status == 502
    origin.be_honest(path)
    assert appliance.get(path).body == content


def test_server_errors_of_the_origin_count_as_gone(appliance, origin, path):
    content = origin.put(path, 100, cache_control="max-age=0")
    appliance.get(path)
    appliance.wait_stored(path)
    origin.put(path, 100, status=503)
    answer = appliance.get(path)
    assert (answer.status, answer.body) == (200, content)


@pytest.mark.parametrize("directive", ["no-store", "private", "private, max-age=1000"])
def test_what_may_not_be_stored_is_not_and_every_request_gets_its_own(appliance, origin, path, directive):
    for version in range(3):
        content = origin.put(path, BLOCK + 10, version=version, cache_control=directive)
        answer = appliance.get(path)
        assert answer.body == content
        assert "stored" not in answer.cache_status
    appliance.wait_landed()
    assert not appliance.held(path)["held"]


def test_no_cache_is_stored_but_asked_about_each_time(appliance, origin, path):
    content = origin.put(path, 100, cache_control="no-cache")
    appliance.get(path)
    appliance.wait_stored(path)
    for _ in range(2):
        answer = appliance.get(path)
        assert answer.body == content
        assert "fwd-status=304" in answer.cache_status


# --- Origins that say little ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000, BLOCK, 2 * BLOCK + 5])
def test_an_object_without_validators_is_right_cold_and_warm(appliance, origin, path, size):
    content = origin.put(path, size, etag=None, last_modified=None)
    assert appliance.get(path).body == content
    appliance.wait_landed()
    assert appliance.get(path).body == content
    if size > 10:
        assert appliance.span(path, size - 10, size).body == content[-10:]


def test_last_modified_alone_is_validator_enough(appliance, origin, path):
    content = origin.put(path, 2 * BLOCK, etag=None)
    assert appliance.span(path, 0, 10).body == content[:10]
    assert appliance.get(path).body == content
    assert any("if-unmodified-since" in asked.headers for asked in origin.asked if asked.path == path)
