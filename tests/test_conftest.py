import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ONE_OF_EACH = """
import pytest

@pytest.mark.skip(reason="by a mark")
def test_mark(): ...

def test_call():
    pytest.skip("by a call")

@pytest.fixture
def absent():
    pytest.skip("by a fixture")

def test_fixture(absent): ...

def test_import():
    pytest.importorskip("a_package_that_is_not_there")

@pytest.mark.xfail(reason="known")
def test_known_fault():
    assert False
"""
WHOLE_MODULES = {
    "test_import.py": "import pytest\npytest.importorskip('a_package_that_is_not_there')\n",
    "test_level.py": "import pytest\npytest.skip('all of it', allow_module_level=True)\n",
}


@pytest.fixture
def closing_line(tmp_path):
    """How a run over skipped tests ends."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").touch()

    for name, source in (WHOLE_MODULES | {"test_one_of_each.py": ONE_OF_EACH}).items():
        (tmp_path / name).write_text(source)

    def run(no_skip: str) -> str:
        environment = os.environ | {"OCA_NO_SKIP": no_skip}
        command = [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.stdout.splitlines()[-1]

    return run


def test_a_skip_of_any_kind_is_allowed_at_home(closing_line):
    assert closing_line("0").startswith("6 skipped, 1 xfailed in")


def test_a_skip_of_any_kind_fails_where_none_is_allowed(closing_line):
    assert closing_line("1").startswith("2 failed, 1 xfailed, 4 errors in")


NEEDS_MOUNTS = """
import pytest

@pytest.mark.mounts
def test_disk(): ...

def test_other(): ...
"""
# Stands for the real one, which asks the machine.
PROBE = "def lacking(): return {!r}"


@pytest.fixture
def run_said(tmp_path):
    """What is said of a run over a test that needs mounts, on a machine that lacks this."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = mounts\n")
    (tmp_path / "test_disks.py").write_text(NEEDS_MOUNTS)
    (tmp_path / "tests/doubles").mkdir(parents=True)
    (tmp_path / "tests/__init__.py").touch()

    def run(missing: str) -> str:
        (tmp_path / "tests/doubles/mounts.py").write_text(PROBE.format(missing))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_disks.py"]
        environment = os.environ | {"OCA_NO_SKIP": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def test_what_the_machine_cannot_do_is_left_out_and_said(run_said):
    said = run_said("/dev/fuse")
    assert "1 tests of disks that fail were LEFT OUT: this machine lacks /dev/fuse" in said
    assert "1 passed, 1 deselected" in said


def test_where_nothing_is_lacking_nothing_is_left_out(run_said):
    said = run_said("")
    assert "LEFT OUT" not in said
    assert "2 passed" in said
