"""What the agent of nightly fill asks of an appliance: peers first, nothing twice, nothing wrong, nothing for ever."""

import contextlib
import hashlib
import os
import signal
import threading
import time

import pytest

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until
from tests.doubles.origin import Origin, reset_at_once, status

HOUR = 3600


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Site:
    """`box` is filled; `peer` is another appliance of its site. Both have the same origin."""

    def __init__(self, origin, make):
        self.origin = origin
        self.box = make(origin.url, name="box").start()
        self.peer = make(origin.url, name="peer").start()

    def fill(self, path, size, box=None, **more):
        return (box or self.box).control("POST", "/v1/fill", {"path": path, "size": size, **more})

    def from_peer(self, path, size, **more):
        return self.fill(path, size, peers=[self.peer.url], **more)

    def held_by_peer(self, path, size):
        """Returns the content; the origin was asked for it."""
        content = self.origin.put(path, size)
        assert self.fill(path, size, self.peer).status == 200
        return content

    def verify(self, path, content, digest=None):
        order = {"path": path, "size": len(content), "sha256": digest or sha256(content)}
        return self.box.control("POST", "/v1/verify", order).json()

    def pledge(self, until, **names):
        return self.box.control("POST", "/v1/pledges", {"until": until, **names})

    def pledged(self, path):
        return {extent["pledged_until"] for extent in self.box.held(path)["extents"]}


@pytest.fixture(scope="module")
def site(module_appliance):
    with Origin() as origin:
        yield Site(origin, module_appliance)


# --- Peers first ---


def test_what_a_peer_holds_comes_from_it_and_not_from_the_origin(site, path):
    content = site.held_by_peer(path, 3 * BLOCK + 7)
    asked = site.origin.count(path)
    answer = site.from_peer(path, len(content)).json()
    assert answer["source_bytes"] == {"peer": len(content), "parent": 0, "origin": 0}
    assert site.origin.count(path) == asked
    assert site.box.get(path).is_hit
    assert site.box.get(path).body == content


def test_what_no_peer_holds_comes_from_the_origin(site, path):
    content = site.origin.put(path, BLOCK + 1)
    answer = site.from_peer(path, len(content)).json()
    assert answer["source_bytes"] == {"peer": 0, "parent": 0, "origin": len(content)}
    assert site.peer.held(path) == {"path": path, "held": False}


def test_who_waits_for_a_peer_fetches_nothing(site, path):
    content = site.origin.put(path, BLOCK)
    answer = site.from_peer(path, BLOCK, only_peers=True)
    assert (answer.status, answer.json()["reason"]) == (503, "no_peer")
    assert site.origin.count(path) == 0
    assert site.fill(path, BLOCK, site.peer).status == 200
    answer = site.from_peer(path, BLOCK, only_peers=True).json()
    assert answer["source_bytes"]["peer"] == BLOCK
    assert site.box.get(path).body == content


def test_a_peer_that_holds_a_part_gives_that_part(site, path):
    content = site.origin.put(path, 4 * BLOCK)
    assert site.fill(path, 4 * BLOCK, site.peer, start=0, stop=2 * BLOCK).status == 200
    answer = site.from_peer(path, 4 * BLOCK, only_peers=True, start=0, stop=2 * BLOCK).json()
    assert answer["source_bytes"]["peer"] == 2 * BLOCK
    answer = site.from_peer(path, 4 * BLOCK, only_peers=True, start=2 * BLOCK)
    assert answer.json()["reason"] == "no_peer"
    answer = site.from_peer(path, 4 * BLOCK).json()
    assert (answer["held_bytes"], answer["source_bytes"]["origin"]) == (2 * BLOCK, 2 * BLOCK)
    assert site.box.get(path).body == content


def test_a_peer_that_is_dead_or_lies_is_passed_over(site, path):
    content = site.origin.put(path, BLOCK + 5)
    with Origin() as liar:
        liar.put(path, BLOCK + 5, version=2)
        liar.lie(path, reset_at_once)
        answer = site.fill(path, BLOCK + 5, peers=["http://127.0.0.1:1", liar.url]).json()
        assert answer["source_bytes"]["origin"] == BLOCK + 5
        assert liar.count(path) > 0
    assert site.box.get(path).body == content


def test_a_peer_with_another_version_does_not_take_away_what_is_held(site, path):
    content = site.origin.put(path, 3 * BLOCK)
    assert site.fill(path, 3 * BLOCK, start=0, stop=BLOCK).status == 200
    with Origin() as other:
        other.put(path, 3 * BLOCK, version=2)
        answer = site.fill(path, 3 * BLOCK, peers=[other.url], only_peers=True)
        assert answer.json()["reason"] == "no_peer"
        answer = site.fill(path, 3 * BLOCK, peers=[other.url]).json()
    assert (answer["held_bytes"], answer["source_bytes"]["origin"]) == (BLOCK, 2 * BLOCK)
    assert site.box.get(path).body == content


def test_what_peers_take_is_no_demand_and_is_told_as_a_hit_of_nobody(site, path):
    content = site.held_by_peer(path, BLOCK)
    answer = site.peer.get(path, Cache_Control="only-if-cached")
    assert (answer.status, answer.body) == (200, content)
    assert site.peer.get(path, Cache_Control="max-age=0, ONLY-IF-CACHED", Range="bytes=1-2").body == content[1:3]


def test_what_is_asked_for_only_if_cached_is_never_fetched(site, path):
    site.origin.put(path, 2 * BLOCK)
    answer = site.box.get(path, Cache_Control="only-if-cached")
    assert answer.status == 504
    assert b"only if it is" in answer.body
    assert site.box.get(path, "HEAD", Cache_Control="only-if-cached").status == 504
    assert site.origin.count(path) == 0
    # A part of it is held: that part, and nothing else.
    site.fill(path, 2 * BLOCK, stop=BLOCK)
    asked = site.origin.count(path)
    assert site.box.get(path, Cache_Control="only-if-cached").status == 504
    assert site.box.get(path, Cache_Control="only-if-cached", Range=f"bytes=0-{BLOCK - 1}").status == 206
    assert site.origin.count(path) == asked


# --- Viewers and fill share the work ---


def test_a_viewer_reads_along_with_what_fill_brings(site, path):
    content = site.origin.put(path, BLOCK)
    gate = site.origin.gate(path, 1000)
    wire = site.box.wire()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    gate.wait_reached()
    asked = site.origin.count(path)
    answers = []
    filler = threading.Thread(target=lambda: answers.append(site.fill(path, BLOCK)))
    filler.start()
    wait_until(lambda: site.box.status()["flights"] == 1, "the block is under way")
    gate.open()
    filler.join(PATIENCE)
    wire.close()
    assert answers[0].status == 200
    assert site.origin.count(path) == asked
    assert site.box.get(path).body == content


def test_a_viewer_who_comes_while_peers_alone_are_asked_gets_it_from_the_origin(site, path):
    content = site.origin.put(path, BLOCK)
    with Origin() as slow:
        slow.put(path, BLOCK)
        gate = slow.gate(path, 10)
        answers = []
        filler = threading.Thread(
            target=lambda: answers.append(site.fill(path, BLOCK, peers=[slow.url], only_peers=True))
        )
        filler.start()
        gate.wait_reached()
        viewer = []
        watching = threading.Thread(target=lambda: viewer.append(site.box.get(path)))
        watching.start()
        wait_until(lambda: site.origin.count(path), "the viewer's question reached the origin")
        slow.drop_connections()
        gate.open()
        watching.join(PATIENCE)
        filler.join(PATIENCE)
    assert viewer[0].body == content


# --- What is not as the catalogue says ---


def test_an_object_that_the_sources_do_not_have_is_absent(site, path):
    answer = site.fill(path, 100)
    assert (answer.status, answer.json()["reason"]) == (404, "absent")


def test_an_object_of_another_size_has_changed(site, path):
    site.origin.put(path, 100)
    answer = site.fill(path, 101)
    assert (answer.status, answer.json()["reason"]) == (409, "changed")
    assert "has 100 bytes, the catalogue says 101" in answer.json()["error"]


def test_an_object_that_changes_while_it_comes_has_changed(site, path):
    site.origin.put(path, 3 * BLOCK)
    assert site.fill(path, 3 * BLOCK, stop=BLOCK).status == 200
    content = site.origin.put(path, 3 * BLOCK, version=2)
    answer = site.fill(path, 3 * BLOCK)
    assert (answer.status, answer.json()["reason"]) == (409, "changed")
    # The old one is gone, and the next question brings the new one.
    assert site.fill(path, 3 * BLOCK).status == 200
    assert site.box.get(path).body == content


def test_while_no_source_answers_the_reason_says_so(site, path):
    site.origin.put(path, BLOCK)
    site.origin.lie(path, status(500))
    answer = site.fill(path, BLOCK)
    assert (answer.status, answer.json()["reason"]) == (502, "unavailable")


def test_what_is_wrong_with_an_order_is_named(site):
    for order, words in (
        ({"path": "x", "size": 1}, 'allowed: a path that starts with "/"'),
        ({"path": "/x", "size": 0}, "0 <= start < stop <= size"),
        ({"path": "/x", "size": 5, "start": 5}, "0 <= start < stop <= size"),
        ({"path": "/x", "size": 5, "stop": 6}, "0 <= start < stop <= size"),
        ({"path": "/x", "size": 5, "peers": ["ftp://x"]}, "allowed: http(s)://host:port"),
        ({"path": "/x", "size": 5, "peers": [f"http://p{at}" for at in range(9)]}, "9 peers; allowed: 8"),
        ({"path": "/x"}, "size"),
    ):
        answer = site.box.control("POST", "/v1/fill", order)
        assert answer.status == 400
        assert words in answer.json()["error"]


# --- Comparing ---


def test_what_is_right_is_confirmed_and_what_is_not_whole_is_missing(site, path):
    content = site.origin.put(path, 2 * BLOCK + 3)
    assert site.verify(path, content) == {"right": False, "reason": "missing"}
    site.fill(path, len(content), stop=BLOCK)
    assert site.verify(path, content) == {"right": False, "reason": "missing"}
    site.fill(path, len(content))
    assert site.verify(path, content) == {"right": True}
    assert site.verify(path, content[:-1]) == {"right": False, "reason": "size"}


def test_what_is_wrong_is_thrown_away_before_anybody_hears_of_it(site, path):
    content = site.origin.put(path, BLOCK)
    site.fill(path, BLOCK)
    before = site.box.metric("oca_fill_verified_total", result="checksum")
    assert site.verify(path, content, "0" * 64) == {"right": False, "reason": "checksum"}
    assert not site.box.held(path)["held"]
    assert site.box.metric("oca_fill_verified_total", result="checksum") == before + 1
    asked = site.origin.count(path)
    assert site.box.get(path).body == content
    assert site.origin.count(path) > asked


# --- Pledging ---


def test_what_comes_is_protected_for_an_hour_and_pledged_by_the_next_question(site, path):
    content = site.origin.put(path, BLOCK)
    site.fill(path, BLOCK)
    (until,) = site.pledged(path)
    assert 0 < until - time.time() <= HOUR
    later = int(time.time()) + 7 * 86400
    answer = site.pledge(later, paths=[path]).json()
    assert answer == {"pledged": 1, "bytes": BLOCK, "absent": []}
    assert site.pledged(path) == {later}
    # Bringing it again, which costs nothing, takes nothing of that.
    assert site.fill(path, len(content)).json()["held_bytes"] == BLOCK
    assert site.pledged(path) == {later}


def test_a_folder_is_pledged_and_given_back_whole(site):
    folder = "/titles/whole/720p.01"
    for name in ("init.mp4", "seg-1.m4s", "seg-2.m4s"):
        site.origin.put(f"{folder}/{name}", 5000)
        site.fill(f"{folder}/{name}", 5000)
    other = f"{folder}x/seg-1.m4s"
    site.origin.put(other, 5000)
    site.fill(other, 5000)
    later = int(time.time()) + 86400
    site.pledge(later, paths=[other])
    answer = site.pledge(later, folders=[folder, "/titles/nothing/here"]).json()
    assert (answer["pledged"], answer["absent"]) == (3, ["/titles/nothing/here"])
    answer = site.pledge(0, folders=[folder]).json()
    assert answer["pledged"] == 3
    assert all(until <= time.time() for until in site.pledged(f"{folder}/seg-1.m4s"))
    assert site.pledged(other) == {later}
    assert site.box.get(f"{folder}/seg-1.m4s").is_hit


def test_more_than_may_be_pledged_is_refused(site, module_appliance, path):
    small = module_appliance(site.origin.url, name="small")
    small.start(store={"pledge_share": 0.001})
    content = site.origin.put(path, 2 * BLOCK)
    assert site.fill(path, len(content), small).status == 200
    answer = small.control("POST", "/v1/pledges", {"until": time.time() + 100, "paths": [path]})
    assert (answer.status, answer.json()["reason"]) == (507, "no_room")
    assert "store.pledge_share" in answer.json()["error"]


def test_a_moment_that_is_past_is_no_pledge(site):
    answer = site.pledge(5, paths=["/x"])
    assert answer.status == 400
    assert "in the future" in answer.json()["error"]


# --- How busy it is, and the rest ---


def test_the_appliance_says_how_busy_it_is_and_what_may_be_pledged(site, path):
    site.origin.put(path, BLOCK)
    before = site.box.control("GET", "/v1/pressure").json()
    site.fill(path, BLOCK)
    site.pledge(int(time.time()) + 86400, paths=[path])
    after = site.box.control("GET", "/v1/pressure").json()
    assert after["pledged_bytes"] >= before["pledged_bytes"] + BLOCK
    assert after["pledgeable_bytes"] == int(0.8 * 1024**3)
    assert (after["flights"], after["egress_bps"] >= 0) == (0, True)
    (device,) = after["devices"]
    assert (device["tier"], device["standing"], device["waited_for"]) == ("nvme", "online", False)


def test_documents_of_the_catalogue_come_past_the_cache(site):
    path = "/catalogue/titles/film.json"
    site.origin.put(path, b'{"a": 1}')
    assert site.box.control("GET", f"/v1/document?path={path}").body == b'{"a": 1}'
    site.origin.put(path, b'{"a": 2}')
    assert site.box.control("GET", f"/v1/document?path={path}").body == b'{"a": 2}'
    assert site.box.control("GET", "/v1/document?path=/catalogue/titles/no.json").status == 404
    assert site.box.control("GET", "/v1/document?path=/titles/x").status == 400


def test_holdings_need_somebody_who_takes_stock(site):
    answer = site.box.control("GET", "/v1/holdings")
    assert answer.status == 409
    assert "[steering] nor [demand]" in answer.json()["error"]


def test_a_keeper_that_is_killed_under_a_fill_leaves_nothing_half(site, module_appliance, path):
    box = module_appliance(site.origin.url, name="killed").start()
    content = site.origin.put(path, 6 * BLOCK)
    gate = site.origin.gate(path, 2 * BLOCK)

    def fill():
        with contextlib.suppress(OSError):  # Its connection goes with the keeper.
            site.fill(path, len(content), box)

    filler = threading.Thread(target=fill)
    filler.start()
    gate.wait_reached()
    (keeper,) = box.keeper_pids
    os.kill(keeper, signal.SIGKILL)
    site.origin.open_gates(path)
    filler.join(PATIENCE)
    wait_until(lambda: box.keeper_pids not in ([], [keeper]), "there is another keeper")
    box.wait_ready()
    assert box.get(path, Cache_Control="only-if-cached").status == 504
    before = box.held(path).get("blocks_held", 0)
    answer = site.fill(path, len(content), box).json()
    assert answer["held_bytes"] == before * BLOCK
    assert answer["source_bytes"]["origin"] == (6 - before) * BLOCK
    assert box.get(path).body == content
