"""The disks that fail, themselves: each trouble is what it says, and passes when it is mended."""

import errno
import os
import subprocess
import threading

import pytest

from tests.doubles.appliance import PATIENCE, wait_until
from tests.doubles.faulty import ALL, Act, faulty_disk
from tests.doubles.mounts import mounted, wait_released

pytestmark = pytest.mark.mounts

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def one_disk(tmp_path_factory):
    with faulty_disk(tmp_path_factory.mktemp("faulty")) as disk:
        yield disk


@pytest.fixture
def disk(one_disk):
    yield one_disk
    one_disk.mend()


@pytest.fixture
def file(disk, request):
    """4 MiB that the kernel does not remember."""
    file = disk.path / request.node.name
    file.write_bytes(os.urandom(4 * MIB))
    disk.forget(file)
    return file


def failing(error):
    return pytest.raises(OSError, match=os.strerror(error))


def synced(file):
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


class Beside:
    """One call in a thread of its own."""

    def __init__(self, call):
        self.result = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call):
        self.result = call()

    @property
    def is_over(self):
        return not self._thread.is_alive()

    def wait(self):
        self._thread.join(PATIENCE)
        assert self.is_over
        return self.result


# --- What is honest ---------------------------------------------------------------------------------------------------


def test_bytes_names_and_attributes_pass_through(disk, file):
    content = file.read_bytes()
    beneath = disk.beneath / file.name
    assert beneath.read_bytes() == content
    os.setxattr(file, "user.oca", b"\0sums")
    assert os.getxattr(beneath, "user.oca") == os.getxattr(file, "user.oca") == b"\0sums"
    assert os.listxattr(file) == ["user.oca"]
    folder = disk.path / "a/b"
    folder.mkdir(parents=True)
    moved = file.rename(folder / "moved")
    assert os.listdir(folder) == ["moved"]
    with moved.open("r+b") as opened:
        opened.truncate(MIB)
        opened.seek(3 * MIB)
        opened.write(b"behind a hole")
        os.fdatasync(opened.fileno())
    assert moved.read_bytes() == content[:MIB] + bytes(2 * MIB) + b"behind a hole"
    assert moved.stat().st_blocks == (disk.beneath / "a/b/moved").stat().st_blocks
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_an_unlinked_file_is_gone_from_its_folder_and_read_by_who_has_it_open(disk, file):
    content = file.read_bytes()
    with file.open("rb") as opened:
        file.unlink()
        disk.forget()
        assert file.name not in os.listdir(disk.path)
        assert os.fstat(opened.fileno()).st_size == len(content)
        assert opened.read() == content


def test_what_the_kernel_remembers_is_read_once_and_what_it_forgot_again(disk, file):
    file.read_bytes()
    seen = disk.count(Act.READ)
    file.read_bytes()
    assert disk.count(Act.READ) == seen
    disk.forget(file)
    file.read_bytes()
    assert seen < disk.count(Act.READ) <= seen + 8


# --- What fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize(
    ("act", "call"),
    [
        (Act.LOOK, lambda file: os.listdir(file.parent)),
        (Act.READ, lambda file: file.read_bytes()),
        (Act.WRITE, lambda file: file.write_bytes(b"x")),
        (Act.SYNC, synced),
        (Act.CHANGE, lambda file: os.setxattr(file, "user.oca", b"")),
        (Act.CHANGE, lambda file: file.with_name(f"{file.name} and another").touch()),
        (Act.CHANGE, lambda file: file.unlink()),
    ],
)
def test_an_act_fails_with_the_error_that_was_told_until_it_is_mended(disk, file, act, call, error):
    number = disk.fail(act, error=error)
    with failing(error):
        call(file)
    disk.mend(number)
    call(file)


def test_an_act_fails_so_many_times(disk, file):
    disk.fail(Act.CHANGE, times=2)
    for _ in range(2):
        with failing(errno.EIO):
            os.setxattr(file, "user.oca", b"")
    os.setxattr(file, "user.oca", b"")


def test_only_paths_that_match_fail(disk, file):
    other = file.with_name("extent.other")
    other.write_bytes(b"right")
    disk.forget(other)
    disk.fail(Act.READ, where="/test_*")
    with failing(errno.EIO):
        file.read_bytes()
    assert other.read_bytes() == b"right"


def test_a_full_disk_says_so_and_still_gives_and_removes(disk, file):
    content = (disk.beneath / file.name).read_bytes()
    assert os.statvfs(disk.path).f_bavail
    disk.be_full()
    assert not os.statvfs(disk.path).f_bavail
    with failing(errno.ENOSPC):
        file.with_name("new").write_bytes(b"x")
    assert file.read_bytes() == content
    file.unlink()


def test_a_read_only_disk_gives_and_takes_nothing(disk, file):
    content = (disk.beneath / file.name).read_bytes()
    disk.be_read_only()
    with failing(errno.EROFS):
        file.with_name("new").write_bytes(b"x")
    with failing(errno.EROFS):
        file.unlink()
    assert file.read_bytes() == content


def test_a_flipped_bit_is_read_where_the_right_one_was_remembered(disk, file):
    content = bytearray(file.read_bytes())
    disk.rot(file, 3 * MIB + 7, bits=0b100)
    content[3 * MIB + 7] ^= 0b100
    assert file.read_bytes() == content


# --- What waits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "call"),
    [(Act.READ, lambda file: len(file.read_bytes())), (Act.WRITE, lambda file: file.write_bytes(bytes(4 * MIB)))],
)
def test_many_are_held_and_another_is_answered_meanwhile(disk, file, act, call):
    files = [file.with_name(f"held-{number}") for number in range(64)]
    for one in files:
        one.write_bytes(bytes(4 * MIB))
    disk.forget(*files)
    disk.hold(act, where="/held-*")
    waiting = [Beside(lambda one=one: call(one)) for one in files]
    wait_until(lambda: disk.held(act) >= len(files), "all are held")
    assert call(file) == 4 * MIB
    assert not any(one.is_over for one in waiting)
    disk.mend()
    assert [one.wait() for one in waiting] == [4 * MIB] * len(files)
    assert disk.held(*ALL) == 0


def test_a_delay_ends_by_itself(disk, file):
    disk.delay(Act.READ, seconds=0.01)
    assert file.read_bytes() == (disk.beneath / file.name).read_bytes()
    assert disk.held(*ALL) == 0


def test_what_was_held_can_fail_in_the_end(disk, file):
    number = disk.hold(Act.READ)
    disk.fail(Act.READ)
    with file.open("rb", buffering=0) as opened:
        waiting = Beside(lambda: read_error(opened))
        disk.wait_held(Act.READ)
        disk.mend(number)
        assert waiting.wait() == errno.EIO


def read_error(opened):
    try:
        opened.read(MIB)
    except OSError as error:
        return error.errno


def looked(path):
    try:
        path.stat()
    except OSError as error:
        return error.errno


def test_a_disk_is_unmounted_though_it_is_held_and_in_use(tmp_path):
    with faulty_disk(tmp_path) as disk:
        (disk.path / "film").write_bytes(bytes(MIB))
        disk.forget()
        disk.hold(*ALL)
        waiting = Beside(lambda: looked(disk.path / "film"))
        disk.wait_held(Act.LOOK)
    # Who waits is answered before the disk goes, or the kernel breaks its wait off with the disk: both are seen.
    assert waiting.wait() in {None, errno.ECONNABORTED, errno.ENOTCONN}
    assert not disk.path.is_mount()


# --- Disks in image files ---------------------------------------------------------------------------------------------


def test_a_loss_of_power_keeps_what_was_synced(tmp_path):
    with mounted(tmp_path / "disk") as disk:
        for name in ("synced", "unsynced"):
            (disk.path / name).write_bytes(bytes(MIB))
            if name == "synced":
                synced(disk.path / name)
        disk.lose_power()
        with failing(errno.EIO):
            os.listdir(disk.path)
        disk.unmount()
        disk.mount()
        assert os.listdir(disk.path) == ["synced"]
        assert (disk.path / "synced").read_bytes() == bytes(MIB)


def test_a_pulled_disk_is_gone_and_comes_back_as_it_was(tmp_path):
    with mounted(tmp_path / "disk", "ext4") as disk:
        (disk.path / "film").write_bytes(b"held")
        with (disk.path / "film").open("rb") as opened:
            disk.pull()
            assert os.listdir(disk.path) == []
            assert disk.is_in_use
            assert opened.read() == b"held"
        wait_released(disk)
        disk.mount("ro")
        assert (disk.path / "film").read_bytes() == b"held"
        with failing(errno.EROFS):
            (disk.path / "film").unlink()


def test_a_disk_in_use_is_not_unmounted_but_leaves_no_mount_behind(tmp_path):
    with mounted(tmp_path / "disk") as disk, (disk.path / "film").open("wb"):
        with pytest.raises(subprocess.CalledProcessError):
            disk.unmount()
        disk.pull()
        assert disk.is_in_use
    wait_released(disk)


def test_a_real_file_system_stands_on_a_disk_that_fails(disk, tmp_path):
    """So that a block layer, a page cache and a log lie between the trouble and who meets it."""
    with mounted(tmp_path / "disk", image=disk.path / "image", direct=True) as real:
        film = real.path / "film"
        film.write_bytes(bytes(8 * MIB))
        with film.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            number = disk.fail(Act.READ)
            with failing(errno.EIO):
                opened.read()
        disk.mend(number)
        disk.hold(Act.READ)
        waiting = Beside(film.read_bytes)
        disk.wait_held(Act.READ)
        disk.mend()
        assert waiting.wait() == bytes(8 * MIB)
