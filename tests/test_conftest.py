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
