"""The control API: what the operator and the fill agent ask of a running appliance."""

import asyncio
import os
import signal
import time

import pytest

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until


def test_status_tells_what_runs_and_what_is_held(appliance, origin, path):
    before = appliance.status()
    origin.put(path, BLOCK + 1)
    appliance.get(path)
    appliance.wait_stored(path)
    after = appliance.status()
    assert after["id"] == "oca-test"
    assert after["objects"] == before["objects"] + 1
    assert after["extents"] == before["extents"] + 1
    assert not after["draining"]
    assert sorted(worker["pid"] for worker in after["workers"].values()) == appliance.worker_pids
    (device,) = after["devices"]
    assert device["standing"] == "online"
    assert device["tier"] == "nvme"
    assert device["path"] == str(appliance.devices[0])
    assert device["capacity_bytes"] == 1024**3
    assert device["used_bytes"] == before["devices"][0]["used_bytes"] + BLOCK + 4096
    assert {"name": "origin", "breaker": "closed"} in after["sources"]


def test_an_object_is_described_block_by_block(appliance, origin, path):
    origin.put(path, 3 * BLOCK, etag='"v7"', cache_control="max-age=500")
    assert appliance.control("GET", f"/v1/objects?path={path}").status == 404
    appliance.span(path, 2 * BLOCK, 2 * BLOCK + 1)
    appliance.wait_landed()
    found = appliance.held(path)
    assert (found["size"], found["etag"], found["lifetime"]) == (3 * BLOCK, '"v7"', 500)
    assert (found["blocks"], found["blocks_held"], found["fresh"]) == (3, 1, True)
    (extent,) = found["extents"]
    assert extent["present"].startswith("0010")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/v1/purge", b"not json", 400, "not the JSON expected"),
        ("POST", "/v1/purge", b"", 400, "not the JSON expected"),
        ("POST", "/v1/purge", {}, 400, 'either "path" or "prefix"'),
        ("POST", "/v1/purge", {"path": "/a", "prefix": "/b"}, 400, 'either "path" or "prefix"'),
        ("POST", "/v1/purge", {"paht": "/a"}, 400, "paht"),
        ("POST", "/v1/purge", {"path": 7}, 400, "path"),
        ("POST", "/v1/purge", {"path": "relative"}, 400, 'does not start with "/"'),
        ("POST", "/v1/purge", {"path": "/../x"}, 400, "climbs above the root"),
        ("POST", "/v1/purge", {"prefix": "relative"}, 400, 'does not start with "/"'),
        ("POST", "/v1/prefetch", {}, 400, "path"),
        ("POST", "/v1/prefetch", {"path": "/a", "start": 10, "stop": 5}, 400, "0 <= start < stop"),
        ("POST", "/v1/prefetch", {"path": "/a", "start": -1}, 400, "0 <= start < stop"),
        ("POST", "/v1/prefetch", {"path": ""}, 400, "path"),
        ("POST", "/v1/prefetch", {"path": "/a", "tier": "nvme"}, 400, "give pledged_until as well"),
        ("POST", "/v1/prefetch", {"path": "/a", "tier": "tape", "pledged_until": 9e9}, 400, "tier"),
        ("POST", "/v1/prefetch", {"path": "/a", "pledged_until": 5}, 400, "is past already"),
        ("POST", "/v1/pledge", {"path": "/a", "until": 9e9}, 404, "/a is not held"),
        ("POST", "/v1/pledge", {"path": "/a"}, 400, "until"),
        ("GET", "/v1/objects", None, 400, "path"),
        ("GET", "/v1/purge", None, 405, ""),
        ("GET", "/v1/unknown", None, 404, ""),
        ("POST", "/v1/purge", b"x" * 100_000, 413, ""),
    ],
)
def test_what_is_asked_wrongly_gets_a_clear_answer(appliance, method, path, body, status, words):
    answer = appliance.control(method, path, body)
    assert answer.status == status
    assert words in answer.json()["error"]


def test_the_control_api_is_not_on_the_film_port_nor_films_on_the_control_port(appliance, origin):
    for path in ("/metrics", "/v1/status", "/readyz"):
        assert appliance.get(path).status == 404
    assert appliance.control("GET", "/control/film.mp4").status == 404


# --- Purge ------------------------------------------------------------------------------------------------------------


def test_a_purged_object_is_gone_from_disk_and_fetched_anew(appliance, origin, path):
    origin.put(path, BLOCK + 5)
    appliance.get(path)
    appliance.wait_stored(path)
    files = len(appliance.extent_files())
    answer = appliance.control("POST", "/v1/purge", {"path": path})
    assert answer.json() == {"purged": 1}
    assert not appliance.held(path)["held"]
    assert len(appliance.extent_files()) == files - 1
    content = origin.put(path, BLOCK + 5, version=2)
    answer = appliance.get(path)
    assert "fwd=miss" in answer.cache_status
    assert answer.body == content
    assert appliance.control("POST", "/v1/purge", {"path": path + "/nobody-knows"}).json() == {"purged": 0}


def test_a_purge_by_prefix_takes_what_is_below_and_nothing_else(appliance, origin, path):
    inside = [f"{path}/a/{number}" for number in range(5)]
    long = f"{path}/a/" + "x" * 600
    outside = [f"{path}/b", f"{path}/aa", f"{path}/A/1"]
    for name in (*inside, long, *outside):
        origin.put(name, 10)
        appliance.get(name)
        appliance.wait_stored(name)
    assert appliance.control("POST", "/v1/purge", {"prefix": f"{path}/a/"}).json() == {"purged": 6}
    for name in (*inside, long):
        assert not appliance.held(name)["held"]
    for name in outside:
        assert appliance.get(name).is_hit
    assert appliance.control("POST", "/v1/purge", {"prefix": f"{path}/a/"}).json() == {"purged": 0}


def test_a_purge_forgets_refusals_too(appliance, origin, path):
    assert appliance.get(path).status == 404
    content = origin.put(path, 10)
    appliance.purge(path)
    assert appliance.get(path).body == content
    other = path + "/other"
    assert appliance.get(other).status == 404
    origin.put(other, 10)
    appliance.control("POST", "/v1/purge", {"prefix": path})
    assert appliance.get(other).status == 200


async def test_after_the_answer_to_a_purge_no_worker_serves_the_old_bytes(appliance, origin, path):
    """Parallel kept connections on all workers: a request begun after the answer never gets an older version."""
    size = 300
    last = 20
    versions = {origin.put(path, size, version=version): version for version in range(last, 0, -1)}
    purged = 1
    answers = asyncio.Semaphore(0)

    async def hammer():
        reader, writer = await asyncio.open_connection("127.0.0.1", appliance.port)
        try:
            while purged < last:
                oldest = purged
                writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert versions[await reader.readexactly(size)] >= oldest
                answers.release()
        finally:
            writer.close()

    async def change():
        nonlocal purged
        for version in range(2, last + 1):
            for _ in range(30):
                await answers.acquire()
            origin.put(path, size, version=version)
            await asyncio.to_thread(appliance.purge, path)
            purged = version

    async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(hammer())
        group.create_task(change())


def test_a_purge_during_a_miss_lets_its_viewer_finish_and_keeps_nothing(appliance, origin, path):
    old = origin.put(path, BLOCK)
    gate = origin.gate(path, 1000)
    with appliance.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        gate.wait_reached()
        appliance.purge(path)
        new = origin.put(path, BLOCK, version=2)
        # The old body is still on its way; a newcomer does not join it.
        origin.open_gates(path)
        assert appliance.get(path).body == new
        assert viewer.read(BLOCK) == old
    appliance.wait_landed()
    assert appliance.get(path).body == new
    appliance.wait_stored(path)
    assert len(appliance.held(path)["extents"]) == 1


def test_a_purge_lets_who_is_being_served_from_disk_finish(appliance, origin, path):
    content = origin.put(path, 3 * BLOCK)
    appliance.get(path)
    appliance.wait_stored(path)
    with appliance.wire(receive_buffer=4096) as viewer:
        viewer.ask(path)
        viewer.head()
        appliance.purge(path)
        assert viewer.read(3 * BLOCK) == content


# --- Drain ------------------------------------------------------------------------------------------------------------


def test_draining_is_said_to_whoever_asks_and_resume_takes_it_back(make_appliance, origin, path):
    one = make_appliance().start()
    content = origin.put(path, 100)
    with one.wire() as kept:
        assert kept.get(path)["Connection"] is None
        assert one.control("POST", "/v1/drain").json() == {"draining": True}
        ready = one.control("GET", "/readyz")
        assert ready.status == 503
        assert ready.json()["reasons"] == ["draining"]
        assert one.control("GET", "/healthz").status == 200
        assert one.status()["draining"]
        # Who is here is served, and told to go elsewhere.
        answer = kept.get(path)
        assert (answer.body, answer["Connection"]) == (content, "close")
        kept.wait_closed()
    assert one.get(path).body == content
    one.control("POST", "/v1/resume")
    assert one.control("GET", "/readyz").status == 200
    with one.wire() as kept:
        for _ in range(2):
            assert kept.get(path)["Connection"] is None
    # What was said holds over the death of the keeper.
    one.control("POST", "/v1/drain")
    one.process.send_signal(1)
    wait_until(lambda: "workers replaced" in one.log.read_text(), "the reload is done")
    wait_until(lambda: len(one.status()["workers"]) == 2, "the new keeper is up")
    assert one.status()["draining"]


# --- Prefetch ---------------------------------------------------------------------------------------------------------


def test_what_was_prefetched_is_hit_without_asking_the_origin_again(appliance, origin, path):
    films = {f"{path}/{n}": origin.put(f"{path}/{n}", 2 * BLOCK + n) for n in range(3)}
    for name in films:
        answer = appliance.control("POST", "/v1/prefetch", {"path": name})
        assert (answer.status, answer.json()) == (202, {"accepted": name})
    for name in films:
        appliance.wait_stored(name)
    asked = len(origin.asked)
    for name, content in films.items():
        answer = appliance.get(name)
        assert answer.is_hit
        assert answer.body == content
    assert len(origin.asked) == asked


def test_a_prefetch_of_a_part_brings_that_part(appliance, origin, path):
    origin.put(path, 5 * BLOCK)
    appliance.control("POST", "/v1/prefetch", {"path": path, "start": BLOCK + 5, "stop": 3 * BLOCK})
    wait_until(lambda: appliance.held(path)["held"] and appliance.held(path)["blocks_held"] == 2, "the part is there")
    wait_until(lambda: appliance.status()["prefetches"] == 0, "the prefetch is over")
    assert appliance.held(path)["blocks_held"] == 2
    assert appliance.held(path)["extents"][0]["present"].startswith("01100")


def test_what_is_prefetched_with_a_pledge_is_pledged_until_it_is_taken_back(appliance, origin, path):
    origin.put(path, 2 * BLOCK + 1)
    until = time.time() + 86400
    appliance.control("POST", "/v1/prefetch", {"path": path, "pledged_until": until, "tier": "nvme"})
    appliance.wait_stored(path)

    def pledges():
        return [extent["pledged_until"] for extent in appliance.held(path)["extents"]]

    assert pledges() == [until]
    assert appliance.metric("oca_pledged_ratio") > 0
    assert appliance.control("POST", "/v1/pledge", {"path": path, "until": 0}).status == 200
    assert pledges() == [0.0]
    later = until + 86400
    assert appliance.control("POST", "/v1/pledge", {"path": path, "until": later}).json()["pledged_until"] == later
    assert pledges() == [later]
    # The operator's purge takes what is pledged like anything else.
    assert appliance.control("POST", "/v1/purge", {"path": path}).json() == {"purged": 1}
    assert not appliance.held(path)["held"]


@pytest.mark.parametrize(("size", "order"), [(0, {}), (100, {"start": 5000}), (100, {"stop": 5000}), (None, {})])
def test_a_prefetch_of_nothing_ends(appliance, origin, path, size, order):
    if size is not None:
        origin.put(path, size)
    assert appliance.control("POST", "/v1/prefetch", {"path": path, **order}).status == 202
    wait_until(lambda: origin.count(path), "the origin was asked")
    wait_until(lambda: appliance.status()["prefetches"] == 0, "it is over")
    appliance.assert_clean_log()


def test_prefetching_an_object_without_validators_brings_all_of_it(appliance, origin, path):
    content = origin.put(path, 2 * BLOCK + 5, etag=None, last_modified=None)
    appliance.control("POST", "/v1/prefetch", {"path": path})
    appliance.wait_stored(path)
    asked = origin.count(path)
    assert appliance.get(path).body == content
    assert origin.count(path) == asked


def test_the_last_lines_of_all_processes_are_told_and_outlive_a_keeper(make_appliance):
    one = make_appliance().start()
    lines = one.control("GET", "/v1/logs").json()["lines"]
    assert {line["process"] for line in lines} >= {"oca", "keeper"}
    (keeper,) = one.keeper_pids
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: one.keeper_pids not in ([], [keeper]), "the keeper is replaced")
    one.wait_ready()
    told = one.control("GET", "/v1/logs?level=error").json()
    assert any(str(keeper) in line["text"] for line in told["lines"])
    assert one.control("GET", f"/v1/logs?since={told['next']}").json()["lines"] == []
    assert len(one.control("GET", "/v1/logs?lines=1").json()["lines"]) == 1


@pytest.mark.parametrize("query", ["level=loud", "lines=x", "lines=999999", "since=-1", "since=" + "9" * 40])
def test_logs_are_asked_for_in_bounds(appliance, query):
    got = appliance.control("GET", f"/v1/logs?{query}")
    assert (got.status, "allowed: " in got.json()["error"]) == (400, True)
