"""Disks fail under a hundred viewers: each gets every byte, and the operator is told which disk it is and why.

Two devices, one of which fails as the test tells it. Viewers compare every byte; what the kernel remembers is dropped
all the time, so that reads reach the disk. `Fault` and `Standing` are words of oca.cache.health.
"""

import contextlib
import errno
import random
import shutil

import pytest

from tests.doubles.appliance import BLOCK, wait_until
from tests.doubles.audience import Audience
from tests.doubles.faulty import ALL, WRITES, Act, faulty_disk
from tests.doubles.mounts import mounted

pytestmark = pytest.mark.mounts

MIB = 1024 * 1024
IN_EXTENTS = "/extents/*"
SIZES = (4097, 300_000, MIB, 70_001, BLOCK, 20_000, BLOCK + 1, 150_000, 500_000, 2 * BLOCK + 12_345)
PLACES = (
    pytest.param(True, id="the disk beneath"),
    pytest.param(False, id="the file system", marks=pytest.mark.soak),
)
AWHILE = 300
"""Answers; three for each viewer."""


@pytest.fixture
def disk(tmp_path):
    with faulty_disk(tmp_path / "faulty") as disk:
        yield disk


@pytest.fixture
def real_disk(tmp_path):
    with mounted(tmp_path / "real") as disk:
        yield disk


@pytest.fixture
def start(disk, make_appliance, tmp_path):
    """Starts an appliance on a device and a healthy one beside it. Both are well again when it is to end."""

    def starts(device, others=("healthy",), **store):
        one = make_appliance()
        one.devices = [device, *(tmp_path / other for other in others)]
        # Newcomers go to the devices at once, and a test does not wait for seconds.
        return one.start(store={"probation": 0, "read_timeout": "500 ms", **store})

    yield starts
    disk.mend()


@pytest.fixture
def hundred(origin, path):
    """Puts films at the origin and a hundred viewers before an appliance that holds them all."""

    def sit(one, seed=1):
        films = shot(origin, f"{path}/old", 20)
        for name in films:
            one.get(name)
        for name in films:
            one.wait_stored(name)
        assert all(entry["used_bytes"] for entry in one.status()["devices"])
        return Audience(one.port, films, seed=seed)

    return sit


@pytest.fixture
def news(origin, path):
    """Films that nobody has seen yet."""
    return shot(origin, f"{path}/new", 20)


def shot(origin, path, count):
    return {f"{path}/{n}": origin.put(f"{path}/{n}", SIZES[n % len(SIZES)] + n) for n in range(count)}


def entry_of(one, device):
    return next(entry for entry in one.status()["devices"] if entry["path"] == str(device))


def named(one, device):
    """What the operator reads of a device: its standing and why, the same in status and metrics."""
    entry = entry_of(one, device)
    metrics = one.metrics()
    for standing in ("online", "failing", "offline"):
        shown = metrics.value("oca_device_standing", device=entry["id"], tier=entry["tier"], standing=standing)
        assert shown == (standing == entry["standing"]) or entry != entry_of(one, device)
    return entry["standing"], entry["reason"]


def wait_named(audience, one, device, standings, reasons, meanwhile=lambda: None):
    """The audience watches until the device is known for what it is."""
    seen = []

    def is_known():
        meanwhile()
        seen.append(named(one, device))
        return seen[-1][0] in standings and seen[-1][1] in reasons

    wait_until(is_known, f"{device} is known to be {standings} for {reasons}")
    assert one.metric("oca_device_faults_total", device=entry_of(one, device)["id"]) >= 1
    assert any(entry_of(one, device)["errors"].values())


def extents_on(beneath):
    """What lies on a disk; other films that were never there would be seen as new names or longer files."""
    found = {}
    for file in (beneath / "extents").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file():
                found[file] = file.stat().st_size
    return found


def assert_nothing_new(before, after):
    """Extents may have gone, none may have come or grown."""
    assert after.keys() <= before.keys()
    assert all(size <= before[file] for file, size in after.items())


def assert_others_are_well(one, device):
    others = [entry for entry in one.status()["devices"] if entry["path"] != str(device)]
    assert [(entry["standing"], entry["reason"]) for entry in others] == [("online", "")] * len(others)
    assert one.metric("oca_requests_total", status_class="5xx") == 0


@pytest.mark.parametrize("is_beneath", PLACES)
def test_reads_that_fail(disk, start, hundred, news, tmp_path, is_beneath):
    """Also of a real XFS on a disk that fails: its log and its metadata are as unreadable as its files."""
    with disk_or_beneath(disk, tmp_path, is_beneath) as (device, forget):
        one = start(device)
        with hundred(one) as audience:
            audience.wait_answers(AWHILE, forget)
            disk.fail(Act.READ, where="*" if is_beneath else IN_EXTENTS)
            audience.premiere(news)
            wait_named(audience, one, device, {"failing", "offline"}, {"io"}, forget)
            audience.wait_answers(AWHILE, forget)
        audience.assert_content()
        assert one.metric("oca_healed_reads_total") >= 1
        assert_others_are_well(one, device)
        # Repaired, it comes back by one command.
        disk.mend()
        assert one.control("POST", "/v1/devices", {"path": str(device)}).status == 200
        assert named(one, device) == ("online", "")
        for name, content in news.items():
            assert one.get(name).body == content
        one.stop()


@contextlib.contextmanager
def disk_or_beneath(disk, folder, is_beneath):
    """A FUSE disk as a device, or an XFS whose image lies on it; and what makes the kernel forget its files."""
    if not is_beneath:
        yield disk.path, disk.forget
        return
    with mounted(folder / "real", image=disk.path / "image", direct=True) as real:
        try:
            yield real.path, real.forget
        finally:
            # Neither can it be unmounted without its disk, nor a process be ended that waits for it.
            disk.mend()


def test_writes_that_fail(disk, start, hundred, news):
    one = start(disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE)
        before = extents_on(disk.beneath)
        disk.fail(*WRITES)
        audience.premiere(news)
        wait_named(audience, one, disk.path, {"failing"}, {"write", "io"})
        audience.wait_answers(AWHILE, disk.forget)
    audience.assert_content()
    assert_nothing_new(before, extents_on(disk.beneath))
    assert_others_are_well(one, disk.path)
    # What lies there is still served from there.
    assert audience.hits
    one.stop()


@pytest.mark.parametrize(("trouble", "reason"), [("be_full", "full"), ("be_read_only", "read_only")])
def test_a_disk_that_takes_no_more_is_still_read(disk, start, hundred, news, trouble, reason):
    """Full, though its capacity says that there is room; and a file system that turned read-only."""
    one = start(disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE)
        getattr(disk, trouble)()
        audience.premiere(news)
        wait_named(audience, one, disk.path, {"failing"}, {reason})
        # What was begun before that is refused by the disk; nothing is begun after it.
        before = extents_on(disk.beneath)
        reads = disk.count(Act.READ)
        audience.wait_answers(AWHILE, disk.forget)
    audience.assert_content()
    assert disk.count(Act.READ) > reads
    assert_nothing_new(before, extents_on(disk.beneath))
    assert_others_are_well(one, disk.path)
    one.stop()


@pytest.mark.parametrize("is_beneath", PLACES)
def test_reads_that_get_no_answer(disk, start, hundred, news, tmp_path, is_beneath):
    with disk_or_beneath(disk, tmp_path, is_beneath) as (device, forget):
        one = start(device)
        with hundred(one) as audience:
            audience.wait_answers(AWHILE, forget)
            disk.hold(Act.READ, where="*" if is_beneath else IN_EXTENTS)
            audience.premiere(news)
            wait_named(audience, one, device, {"offline"}, {"stalled"})
            audience.wait_answers(AWHILE)
        audience.assert_content()
        assert_others_are_well(one, device)
        disk.mend()
        one.stop()


def test_an_appliance_ends_though_a_disk_gives_no_answer(disk, start, hundred):
    one = start(disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE)
        disk.forget()
        disk.hold(Act.READ, *WRITES, where=IN_EXTENTS)
        audience.wait_answers(AWHILE)
    audience.assert_content()
    one.stop()


def test_an_appliance_starts_though_a_disk_gives_no_answer(disk, start, hundred):
    one = start(disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE)
    one.stop()
    disk.forget()
    disk.hold(*ALL)
    one.start()
    with audience.again() as audience:
        audience.wait_answers(AWHILE)
    audience.assert_content()
    standing, reason = named(one, disk.path)
    assert standing == "offline"
    assert reason in {"stalled", "unusable"}
    assert_others_are_well(one, disk.path)
    disk.mend()
    one.stop()


def test_writes_that_get_no_answer(disk, start, hundred, news):
    one = start(disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE)
        disk.hold(*WRITES)
        audience.premiere(news)
        disk.wait_held(*WRITES)
        audience.wait_answers(2 * AWHILE)
        disk.mend()
    audience.assert_content()
    assert one.metric("oca_requests_total", status_class="5xx") == 0
    one.stop()


def test_reads_that_take_long(disk, start, hundred, tmp_path):
    """Reads of what the kernel remembers are none of the disk's: only on a real file system are they told apart."""
    with disk_or_beneath(disk, tmp_path, is_beneath=True) as (device, forget):
        one = start(device, slow_read="20 ms", read_timeout="5 s")
        with hundred(one) as audience:
            audience.wait_answers(AWHILE)
            disk.delay(Act.READ, seconds=0.05)
            wait_named(audience, one, device, {"failing"}, {"slow"}, forget)
            audience.wait_answers(AWHILE)
            disk.mend()
        audience.assert_content()
        assert_others_are_well(one, device)
        one.stop()


def test_bits_that_flip_at_rest(disk, start, hundred, news):
    one = start(disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE, disk.forget)
        dice = random.Random(7)
        for file, size in extents_on(disk.beneath).items():
            for start_of_block in range(0, size, BLOCK):
                offset = dice.randrange(start_of_block, min(size, start_of_block + BLOCK))
                # One whose first rotten block was read meanwhile is given up already.
                with contextlib.suppress(FileNotFoundError):
                    disk.rot(disk.path / file.relative_to(disk.beneath), offset, bits=1 << dice.randrange(8))
        audience.premiere(news)
        wait_named(audience, one, disk.path, {"failing", "offline"}, {"rotten"}, disk.forget)
        audience.wait_answers(AWHILE, disk.forget)
    audience.assert_content()
    assert one.metric("oca_healed_reads_total") >= 1
    assert_others_are_well(one, disk.path)
    one.stop()


def test_one_flipped_bit_is_healed_and_the_disk_stays(disk, start, hundred, origin):
    one = start(disk.path)
    with hundred(one) as audience:
        file, _ = max(extents_on(disk.beneath).items(), key=lambda item: item[1])
        disk.rot(disk.path / file.relative_to(disk.beneath), 1234)
        device = entry_of(one, disk.path)["id"]
        wait_until(
            lambda: disk.forget() or one.metric("oca_device_faults_total", device=device, fault="rotten") == 1,
            "the flipped bit is counted, once",
        )
        audience.wait_answers(AWHILE, disk.forget)
    audience.assert_content()
    assert named(one, disk.path) == ("online", "")
    assert one.metric("oca_device_faults_total", device=device, fault="rotten") == 1
    one.stop()


def test_a_disk_that_is_pulled(real_disk, start, hundred, news):
    one = start(real_disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE, real_disk.forget)
        real_disk.pull()
        audience.premiere(news)
        wait_named(audience, one, real_disk.path, {"offline"}, {"vanished"})
        audience.wait_answers(AWHILE)
    audience.assert_content()
    # The folder that lies beneath the mount point is no device: not a file is written there.
    assert list(real_disk.path.iterdir()) == []
    assert_others_are_well(one, real_disk.path)
    one.stop()


def test_another_disk_in_its_place(real_disk, start, hundred, news, tmp_path):
    one = start(real_disk.path)
    with mounted(tmp_path / "other") as other:
        shutil.copytree(real_disk.path, other.path, dirs_exist_ok=True)
        (other.path / "oca-device.json").write_text('{"id": "0123456789abcdef", "format": 1}')
        other.unmount()
        with hundred(one) as audience:
            audience.wait_answers(AWHILE, real_disk.forget)
            real_disk.pull()
            other.mount(at=real_disk.path)
            before = extents_on(real_disk.path)
            audience.premiere(news)
            wait_named(audience, one, real_disk.path, {"offline"}, {"wrong_disk"})
            audience.wait_answers(AWHILE)
        audience.assert_content()
        assert extents_on(real_disk.path) == before
        assert_others_are_well(one, real_disk.path)
        one.stop()


def test_a_disk_that_loses_power(real_disk, start, hundred, news):
    """XFS shuts itself down: every access fails from then on."""
    one = start(real_disk.path)
    with hundred(one) as audience:
        audience.wait_answers(AWHILE, real_disk.forget)
        real_disk.lose_power()
        audience.premiere(news)
        wait_named(audience, one, real_disk.path, {"failing", "offline"}, {"io"})
        audience.wait_answers(AWHILE)
    audience.assert_content()
    assert_others_are_well(one, real_disk.path)
    one.stop()


def test_no_disk_is_left(disk, start, hundred, news):
    """Then everything passes through: the box is a poor one, and no viewer knows."""
    one = start(disk.path, others=())
    with hundred(one) as audience:
        audience.wait_answers(AWHILE, disk.forget)
        disk.fail(Act.READ, *WRITES)
        audience.premiere(news)
        wait_named(audience, one, disk.path, {"failing", "offline"}, {"io"}, disk.forget)
        audience.wait_answers(AWHILE, disk.forget)
    audience.assert_content()
    assert one.metric("oca_requests_total", status_class="5xx") == 0
    one.stop()


TROUBLES = [
    lambda disk: disk.fail(Act.READ, where=IN_EXTENTS),
    lambda disk: disk.fail(Act.READ, where=IN_EXTENTS, times=3),
    lambda disk: disk.fail(*WRITES),
    lambda disk: disk.fail(Act.SYNC, times=1),
    lambda disk: disk.fail(Act.LOOK, where=IN_EXTENTS),
    lambda disk: disk.fail(Act.READ, error=errno.ENODATA, where=IN_EXTENTS),
    lambda disk: disk.hold(Act.READ),
    lambda disk: disk.hold(Act.READ, *WRITES),
    lambda disk: disk.delay(Act.READ, *WRITES, seconds=0.3),
    lambda disk: disk.be_full(),
    lambda disk: disk.be_read_only(),
]


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_trouble_after_another(disk, start, hundred, origin, path, seed):
    """Forty times something goes wrong and is mended again, and the device comes back; bits flip now and then."""
    dice = random.Random(seed)
    one = start(disk.path)
    with hundred(one, seed) as audience:
        for number in range(40):
            dice.choice(TROUBLES)(disk)
            audience.premiere(shot(origin, f"{path}/{number}", 4))
            audience.wait_answers(dice.randrange(100, 600))
            disk.mend()
            assert one.control("POST", "/v1/devices", {"path": str(disk.path)}).status == 200
            if dice.random() < 0.3:
                for file, size in extents_on(disk.beneath).items():
                    # Some are just made, and some go.
                    if size:
                        with contextlib.suppress(FileNotFoundError):
                            disk.rot(disk.path / file.relative_to(disk.beneath), dice.randrange(size))
            audience.wait_answers(dice.randrange(100), disk.forget)
            assert audience.faults == []
            assert audience.cuts == []
    one.stop()
