"""What is held is known again without its index, and what rots at rest is found, named and replaced."""

import os
import random
import shutil
import signal

import pytest

from oca.cache.health import Fault
from oca.cache.keys import object_key
from tests.doubles.appliance import BLOCK, PATIENCE, command, wait_until

KINDS = {
    "small": (4097, [(0, 4097)]),
    "block": (BLOCK, [(0, BLOCK)]),
    "film": (2 * BLOCK + 5, [(0, 2 * BLOCK + 5)]),
    # Two extents, with holes.
    "long": (17 * BLOCK + 1, [(0, 5), (2 * BLOCK, 2 * BLOCK + 5), (17 * BLOCK, 17 * BLOCK + 1)]),
}
"""Sizes of films, and which spans of them are watched."""
HELD = {"small": 1, "block": 1, "film": 3, "long": 3}
STILL = {"fetch": {"read_ahead_blocks": 0}}


def fill(appliance, origin, path):
    """Films of all kinds, seen by viewers until what they saw lies on a device."""
    films = {f"{path}/{kind}": origin.put(f"{path}/{kind}", size) for kind, (size, _) in KINDS.items()}
    are_right(appliance, films)
    for name in films:
        wait_held(appliance, name)
    return films


def wait_held(appliance, name):
    wanted = HELD[name.rpartition("/")[2]]
    wait_until(lambda: appliance.held(name).get("blocks_held") == wanted, f"{name} is held")


def are_right(appliance, films, *, hits=False):
    for name, content in films.items():
        for start, stop in KINDS[name.rpartition("/")[2]][1]:
            answer = appliance.span(name, start, stop)
            assert answer.body == content[start:stop]
            assert answer.is_hit or not hits, answer.cache_status


def serves_without_the_origin(appliance, origin, films):
    asked = len(origin.asked)
    are_right(appliance, films, hits=True)
    assert len(origin.asked) == asked


def flip(file, offset):
    with file.open("r+b") as disk:
        disk.seek(offset)
        (byte,) = disk.read(1)
        disk.seek(offset)
        disk.write(bytes([byte ^ 1]))
        os.fsync(disk.fileno())


def file_of(appliance, path):
    (file,) = [file for file in appliance.extent_files() if file.name.startswith(object_key(path).hex())]
    return file


def three_devices(one):
    one.devices = [one.folder / name for name in ("first", "second", "third")]
    return one


# --- Without an index -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["start", "command"])
def test_what_is_held_is_known_again_without_the_index(make_appliance, origin, path, by):
    one = three_devices(make_appliance()).start(**STILL)
    films = fill(one, origin, path)
    files = sorted(one.extent_files())
    one.stop()
    shutil.rmtree(one.state_dir)
    if by == "command":
        code, output, errors = command(one, "index", "rebuild")
        assert code == 0, errors
        assert output.startswith(f"{len(files)} extents")
    one.start(**STILL)
    for name in films:
        wait_held(one, name)
    serves_without_the_origin(one, origin, films)
    assert sorted(one.extent_files()) == files
    # And it goes on as if nothing had been.
    wait_until(lambda: not any(device["detail"] for device in one.status()["devices"]), "all is taken over")
    more = fill(one, origin, f"{path}/more")
    code, output, errors = command(one, "store", "verify")
    assert code == 0, output + errors
    one.stop()
    one.start(**STILL)
    serves_without_the_origin(one, origin, films | more)
    one.stop()


def test_what_is_asked_for_while_it_is_taken_over_is_not_fetched(make_appliance, origin, path):
    one = three_devices(make_appliance()).start(**STILL)
    films = fill(one, origin, path)
    one.stop()
    shutil.rmtree(one.state_dir)
    asked = {name: origin.count(name) for name in films}
    one.start(**STILL)
    are_right(one, films)
    assert {name: origin.count(name) for name in films} == asked
    one.stop()


def test_who_is_killed_while_it_takes_over_loses_nothing(make_appliance, origin, path):
    one = three_devices(make_appliance()).start(**STILL)
    films = fill(one, origin, path)
    one.stop()
    shutil.rmtree(one.state_dir)
    dice = random.Random(3)
    one.start(**STILL)
    for _ in range(4):
        for pid in one.keeper_pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: one.keeper_pids and one.status()["loaded"], "the next keeper is up")
        if dice.randrange(2):
            are_right(one, dict([next(iter(films.items()))]))
    for name in films:
        wait_held(one, name)
    are_right(one, films)
    code, output, errors = command(one, "store", "verify")
    assert code == 0, output + errors
    one.stop()


def test_a_device_of_another_box_is_served_from_at_once(make_appliance, origin, second_origin, path):
    other = make_appliance().start(**STILL)
    films = fill(other, origin, path)
    other.stop()
    one = make_appliance(second_origin.url).start(**STILL)
    own = {f"{path}/own/small": second_origin.put(f"{path}/own/small", 4097)}
    are_right(one, own)
    wait_held(one, f"{path}/own/small")
    moved = one.folder / "moved"
    other.devices[0].rename(moved)
    code, output, errors = command(one, "device", "add", str(moved), "--tier", "nvme", "--capacity", "1 GiB")
    assert code == 0, output + errors
    for name in films:
        wait_held(one, name)
    serves_without_the_origin(one, second_origin, films | own)
    one.stop()
    other.devices = []


def test_what_is_purged_while_it_comes_in_is_gone(make_appliance, origin, path):
    one = make_appliance().start(**STILL)
    films = fill(one, origin, path)
    one.stop()
    shutil.rmtree(one.state_dir)
    one.start(**STILL)
    gone, *rest = films
    one.purge(gone)
    for name in rest:
        wait_held(one, name)
    assert not one.held(gone)["held"]
    serves_without_the_origin(one, origin, {name: films[name] for name in rest})
    asked = origin.count(gone)
    are_right(one, {gone: films[gone]})
    assert origin.count(gone) > asked
    one.stop()


# --- What rots --------------------------------------------------------------------------------------------------------


def test_what_rots_at_rest_is_named_by_verify_and_replaced_by_the_scrubber(make_appliance, origin, path):
    one = make_appliance().start(**STILL)
    films = fill(one, origin, path)
    cut, rotten, gone, well = films
    one.stop()
    flip(file_of(one, rotten), 99)
    os.truncate(file_of(one, cut), 1000)
    file_of(one, gone).unlink()
    code, output, errors = command(one, "store", "verify")
    assert code == 1, errors
    told = output.splitlines()
    for name, flaw in ((rotten, "rotten"), (cut, "short"), (gone, "missing")):
        (line,) = [line for line in told if f"({name}, extent 0)" in line]
        assert line.startswith(f"{flaw}: ")
    assert not [line for line in told if well in line]
    asked = {name: origin.count(name) for name in films}
    # Everything within a second, again and again.
    one.start(**STILL, store={"scrub_days": 0.00001})
    wait_until(lambda: one.metric("oca_scrub_replaced_blocks_total") >= 5, "all is replaced", 2 * PATIENCE)
    for name in films:
        wait_held(one, name)
    metrics = one.metrics()
    for fault in ("rotten", "short", "missing"):
        assert metrics.value("oca_scrub_damaged_total", fault=fault) == 1
    (device,) = one.status()["devices"]
    assert 0 <= device["scrub"]["share"] <= 1
    wait_until(lambda: one.metric("oca_scrubbed_bytes_total") > 8 * BLOCK, "what is well is read again and again")
    assert sum(one.metric("oca_scrub_damaged_total", fault=fault) for fault in Fault) == 3
    assert all(origin.count(name) > asked[name] for name in (rotten, cut, gone))
    assert origin.count(well) == asked[well]
    serves_without_the_origin(one, origin, films)
    one.stop()
    code, output, errors = command(one, "store", "verify")
    assert code == 0, output + errors


def test_viewers_never_get_what_rotted(make_appliance, origin, path):
    one = make_appliance().start(**STILL)
    films = fill(one, origin, path)
    one.stop()
    dice = random.Random(8)
    for name in films:
        for file in one.extent_files():
            if file.name.startswith(object_key(name).hex()):
                flip(file, dice.randrange(file.stat().st_size))
    # What lies in the page cache is what the disk would have given.
    for file in one.extent_files():
        with file.open("rb") as disk:
            os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    one.start(**STILL)
    for _ in range(2):
        are_right(one, films)
    assert one.metric("oca_requests_total", status_class="5xx") == 0
    one.stop()
