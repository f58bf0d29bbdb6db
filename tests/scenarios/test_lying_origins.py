"""An origin that lies, in every way caches were corrupted by: never a wrong byte, nothing of the lie is kept, and the
next honest answer heals.
"""

import http.client

import pytest

from tests.doubles import origin as lies
from tests.doubles.appliance import BLOCK, EXTENT, wait_until
from tests.doubles.origin import Origin

SIZE = BLOCK + 100_000
SMALL = 200_000

# Each with the reason it is counted under. None: it is legal, and the bytes are right.
LIES = [
    (lies.wrong_start, "wrong_range"),
    (lies.wrong_end, "wrong_range"),
    (lies.no_content_range, "wrong_range"),
    (lies.no_content_length, "wrong_size"),
    (lies.gzip_coding, "encoded"),
    (lies.short_body, "truncated"),
    (lies.multipart, "wrong_range"),
    (lies.chunked_short, "wrong_size"),
    (lies.stall_midway, "timeout"),
    (lies.stall_at_once, "timeout"),
    (lies.reset_midway, None),
    (lies.reset_at_once, "connect"),
    (lies.garbage, "connect"),
    (lies.both_lengths, None),
    (lies.unasked_304, "status"),
    (lies.status(500), "status"),
    (lies.status(503, retry_after="1"), "status"),
    (lies.status(999), None),
    (lies.status(204), None),
    (lies.redirect("http://127.0.0.1:1/elsewhere"), "redirect"),
    (lies.redirect("//evil.example/"), "redirect"),
    (lies.redirect("file:///etc/passwd"), "redirect"),
    (lies.redirect(""), "redirect"),
]
# Lies that can't be told from another version of the object by the head of a first answer.
PLAUSIBLE = [lies.wrong_complete_length, lies.other_validator, lies.weak_validator, lies.no_validators]


def named(lie):
    return getattr(lie, "__qualname__", str(lie)).replace(".<locals>.lie", "")


@pytest.fixture(scope="module")
def liar():
    """A parent, asked before the honest origin."""
    with Origin() as liar:
        yield liar


@pytest.fixture(scope="module")
def laddered(origin, liar, module_appliance):
    return module_appliance(origin.url).start(
        parents=[{"url": liar.url}], fetch={"attempts": 2, "stall_timeout": "2 s"}
    )


@pytest.mark.parametrize(("lie", "reason"), LIES, ids=named)
def test_a_lie_of_the_first_source_is_mended_by_the_second(laddered, origin, liar, path, lie, reason):
    content = origin.put(path, SMALL)
    liar.put(path, SMALL)
    liar.lie(path, lie)
    before = laddered.metrics()
    answer = laddered.get(path)
    assert answer.status == 200
    assert answer.body == content
    after = laddered.metrics()

    def grown(name, **labels):
        return after.value(name, **labels) - before.value(name, **labels)

    labels = {} if reason is None else {"reason": reason}
    assert grown("oca_fetch_errors_total", source="parent-1", **labels) >= 1
    assert grown("oca_fetch_errors_total", source="origin") == 0
    # What was kept is right as well, and kept to the last block.
    laddered.wait_stored(path)
    assert laddered.get(path).body == content


@pytest.mark.parametrize(("lie", "reason"), LIES, ids=named)
def test_a_lie_in_the_middle_of_a_film_is_mended_without_the_viewer_noticing(laddered, origin, liar, path, lie, reason):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    assert laddered.span(path, 0, 10).body == content[:10]
    laddered.wait_landed()
    liar.lie(path, lie)
    assert laddered.get(path).body == content
    laddered.wait_stored(path)
    assert laddered.get(path).body == content


@pytest.mark.parametrize("lie", PLAUSIBLE, ids=named)
def test_another_version_in_the_middle_of_a_film_is_never_spliced_in(laddered, origin, liar, path, lie):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    assert laddered.span(path, 0, 10).body == content[:10]
    laddered.wait_landed()
    liar.lie(path, lie)
    assert laddered.get(path).body == content
    laddered.wait_stored(path)
    assert laddered.get(path).body == content
    assert laddered.metric("oca_fetch_errors_total", source="parent-1", reason="wrong_validator") >= 1


@pytest.mark.parametrize("lie", [lie for lie, _ in LIES if lie is not lies.both_lengths], ids=named)
def test_without_an_honest_source_the_viewer_gets_an_error_or_a_cut_and_the_next_one_the_film(
    laddered, origin, liar, path, lie
):
    content = origin.put(path, SMALL)
    liar.put(path, SMALL)
    origin.lie(path, lie)
    liar.lie(path, lie)
    with laddered.wire() as viewer:
        viewer.ask(path)
        got = viewer.rest() if lie in CUTS else viewer.answer()
    if lie in CUTS:
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert len(body) < SMALL
        assert content.startswith(body)
    else:
        assert got.status in (502, 504)
        assert got["Cache-Control"] is None
    laddered.wait_landed()
    origin.be_honest(path)
    liar.be_honest(path)
    assert laddered.get(path).body == content
    laddered.wait_stored(path)
    assert laddered.get(path).body == content


# Half of the body is right, and then it ends: so far the viewer read along.
CUTS = {lies.short_body, lies.stall_midway, lies.reset_midway}


def test_a_body_longer_than_it_says_is_read_to_its_length_and_poisons_no_other_answer(laddered, origin, liar, path):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    liar.lie(path, lies.long_body)
    assert laddered.get(path).body == content
    others = {f"{path}/{number}": origin.put(f"{path}/{number}", 1000) for number in range(8)}
    for other, right in others.items():
        liar.put(other, 1000)
        assert laddered.get(other).body == right
    laddered.wait_stored(path)
    assert laddered.get(path).body == content


@pytest.mark.parametrize("size", [1000, BLOCK, SIZE])
def test_the_whole_object_in_answer_to_a_range_is_used_as_such(laddered, origin, liar, path, size):
    content = origin.put(path, size)
    liar.put(path, size)
    liar.lie(path, lies.whole_to_a_range)
    assert laddered.span(path, size - 10, size).body == content[-10:]
    laddered.wait_stored(path)
    answer = laddered.get(path)
    assert answer.is_hit
    assert answer.body == content


def test_a_whole_answer_in_the_middle_of_a_film_gives_the_block_that_was_wanted(laddered, origin, liar, path):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    assert laddered.span(path, 0, 10).body == content[:10]
    laddered.wait_landed()
    liar.lie(path, lies.whole_to_a_range)
    assert laddered.get(path).body == content


def test_a_part_said_to_be_the_whole_is_not_believed_of_an_object_that_is_known(laddered, origin, liar, path):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    assert laddered.get(path, "HEAD")["Content-Length"] == str(SIZE)
    liar.lie(path, lies.part_as_whole)
    assert laddered.get(path).body == content


def test_an_unsatisfiable_range_that_exists_is_asked_for_elsewhere(laddered, origin, liar, path):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    liar.lie(path, lies.unsatisfiable)
    assert laddered.get(path).body == content


@pytest.mark.parametrize("lie", [lies.close_delimited, lies.chunked], ids=named)
@pytest.mark.parametrize("size", [0, 1, 50_000])
def test_an_honest_answer_without_a_length_is_served_and_kept(laddered, origin, liar, path, lie, size):
    content = liar.put(path, size)
    origin.put(path, size)
    liar.lie(path, lie)
    assert laddered.get(path).body == content
    assert laddered.get(path, "HEAD")["Content-Length"] == str(size)
    laddered.wait_landed()
    assert laddered.get(path).body == content


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_in_the_middle_of_a_film_cuts_or_mends_but_never_mixes(laddered, origin, liar, path, status):
    content = origin.put(path, SIZE)
    liar.put(path, SIZE)
    assert laddered.span(path, 0, 10).body == content[:10]
    laddered.wait_landed()
    liar.lie(path, lies.status(status))
    assert laddered.get(path).body == content


def test_a_film_that_changes_between_two_blocks_is_cut_or_whole_but_never_mixed(appliance, origin, path):
    old = origin.put(path, SIZE)
    gate = origin.gate(path, BLOCK - 10)
    with appliance.wire() as viewer:
        viewer.ask(path, Range=f"bytes=0-{BLOCK - 1}")
        viewer.head()
        gate.wait_reached()
        new = origin.put(path, SIZE, version=2)
        gate.open()
        assert viewer.read(BLOCK) == old[:BLOCK]
    with appliance.wire() as viewer:
        viewer.ask(path)
        got = viewer.rest_of_answer()
    assert got in (new, old[: len(got)])
    assert got == new or len(got) < SIZE
    wait_until(lambda: appliance.get(path).body == new, "the new film is served")


def test_a_film_that_changes_from_request_to_request_never_gives_a_mixed_body(appliance, origin, path):
    """The worst case: every range is of another version."""
    versions = []

    def changing(asked, film, reply):
        versions.append(origin.put(path, SIZE, version=len(versions) + 2))
        return lies.honest(asked, origin.film(path))

    origin.put(path, SIZE)
    origin.lie(path, changing)
    for _ in range(3):
        with appliance.wire() as viewer:
            viewer.ask(path)
            body = viewer.rest_of_answer()
        assert any(version.startswith(body) for version in versions) or b"no source" in body
        assert len(body) < SIZE
    origin.be_honest(path)
    wait_until(lambda: _body(appliance, path) == versions[-1], "the last version is served")


def _body(appliance, path):
    try:
        return appliance.get(path).body
    except http.client.IncompleteRead:
        return b""


# --- Redirects --------------------------------------------------------------------------------------------------------


def test_a_redirect_to_an_allowed_host_is_followed_with_the_range(make_appliance, origin, second_origin, path):
    one = make_appliance().start(origin={"redirect_hosts": [second_origin.host]})
    content = second_origin.put("/moved" + path, SIZE)
    origin.lie(path, lies.redirect(f"{second_origin.url}/moved{path}"))
    assert one.get(path).body == content
    assert second_origin.ranges("/moved" + path)[0] == f"bytes=0-{BLOCK - 1}"
    # A host not listed is never asked.
    with Origin() as stranger:
        other = path + "/other"
        origin.lie(other, lies.redirect(f"{stranger.url}/x"))
        assert one.get(other).status == 502
        assert stranger.asked == []
    circle = path + "/circle"
    origin.lie(circle, lies.redirect(circle))
    assert one.get(circle).status == 502
    assert origin.count(circle) <= 4 * 4
    assert one.metric("oca_fetch_errors_total", source="origin", reason="redirect") >= 2


# --- The breaker ------------------------------------------------------------------------------------------------------


def test_a_failing_source_is_left_alone_probed_and_taken_back(make_appliance, origin, second_origin, path):
    one = make_appliance(origin.url).start(
        parents=[{"url": second_origin.url}], breaker={"min_calls": 5, "open_for": "500 ms", "window": "60 s"}
    )

    def state():
        return one.metric("oca_breaker_state", source="parent-1")

    number = 0

    def fetch():
        nonlocal number
        number += 1
        name = f"{path}/{number}"
        content = origin.put(name, 100)
        second_origin.put(name, 100)
        if is_failing:
            second_origin.lie(name, lies.status(500))
        assert one.get(name).body == content

    is_failing = True
    while state() != 2:
        fetch()
        assert number <= 10
    assert number == 5
    asked = len(second_origin.asked)
    fetch()
    assert len(second_origin.asked) == asked
    # A probe that fails opens it anew; viewers notice nothing of it.
    wait_until(lambda: fetch() or len(second_origin.asked) > asked, "a probe is sent")
    assert state() == 2
    is_failing = False
    wait_until(lambda: fetch() or state() == 0, "it is taken back")
    asked = len(second_origin.asked)
    fetch()
    assert len(second_origin.asked) == asked + 1


def test_an_open_breaker_serves_what_is_held_and_says_so_of_the_rest(make_appliance, second_origin, path):
    one = make_appliance(second_origin.url).start(breaker={"min_calls": 4, "open_for": "1 h"})
    held = second_origin.put(path, 100)
    stale = second_origin.put(path + "/stale", 100, cache_control="max-age=0")
    one.get(path)
    one.get(path + "/stale")
    one.wait_stored(path)
    one.wait_stored(path + "/stale")
    second_origin.lie(path + "/broken", lies.status(500))
    for _ in range(4):
        assert one.get(path + "/broken").status == 502
    assert one.metric("oca_breaker_state", source="origin") == 2
    asked = len(second_origin.asked)
    assert one.get(path).body == held
    assert one.get(path + "/stale").body == stale
    refused = one.get(path + "/never-seen")
    assert refused.status == 502
    assert refused["Retry-After"] is not None
    assert len(second_origin.asked) == asked


def test_what_clients_ask_wrongly_does_not_open_the_breaker(make_appliance, second_origin, path):
    """A 4xx of the origin is about one request: anybody could shut a healthy origin off by asking for nonsense."""
    one = make_appliance(second_origin.url).start(breaker={"min_calls": 4, "open_for": "1 h"})
    for number in range(6):
        name = f"{path}/{number}"
        second_origin.lie(name, lies.status([400, 404, 403, 410, 414, 431][number]))
        assert one.get(name).status >= 400
    content = second_origin.put(path, 100)
    assert one.get(path).body == content
    assert one.metric("oca_breaker_state", source="origin") == 0


# --- Loops ------------------------------------------------------------------------------------------------------------


def test_two_appliances_that_are_each_others_parents_do_not_loop(make_appliance, origin, path):
    one = make_appliance(name="oca-one")
    two = make_appliance(name="oca-two")
    one.start(parents=[{"url": two.url}])
    two.start(parents=[{"url": one.url}])
    small = origin.put(path, 1000)
    large = origin.put(path + "/large", 6 * BLOCK)
    assert one.get(path).body == small
    assert one.get(path + "/large").body == large
    assert two.get(path + "/large").body == large
    # Waiting for each other until a deadline passes would be a loop as well.
    for box in (one, two):
        assert box.metric("oca_fetch_errors_total", reason="timeout") == 0


def test_a_request_that_was_here_before_is_refused_and_nothing_fetched(appliance, origin, path):
    origin.put(path, 10)
    for loop in ("oca-test", "other, oca-test", "oca-test;v=1, b", "a,oca-test"):
        answer = appliance.get(path, CDN_Loop=loop)
        assert answer.status == 508
    assert origin.count(path) == 0
    assert appliance.get(path, CDN_Loop="another").status == 200
    assert origin.asked[-1].headers["cdn-loop"] == "another, oca-test"


def test_sources_are_asked_politely(appliance, origin, path):
    origin.put(path, 10)
    appliance.get(path, Cookie="a=b", Authorization="Bearer x", Range=f"bytes={EXTENT}-")
    for asked in origin.asked:
        if asked.path == path:
            assert asked.headers["accept-encoding"] == "identity"
            assert asked.headers["cdn-loop"] == "oca-test"
            assert "cookie" not in asked.headers
            assert "authorization" not in asked.headers
