"""For all tests: laws are judged without a clock, and where OCA_NO_SKIP=1 (.ci/run) a skipped test has failed.

Tests marked `mounts` or `networks` are left out where the machine can't do that; the end of the run says so, and how
many they are.
"""

import os
from importlib import import_module

import pytest
from hypothesis import settings

# A busy machine is no fault of the code: no deadline. In CI the same examples each time: a red run can be repeated.
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("house")

_LEFT_OUT = pytest.StashKey[list[str]]()
_NEEDS = {
    "mounts": "tests of disks that fail",
    "networks": "tests of BGP between machines",
    "racking": "tests of whole machines",
}
"""By mark; what the machine lacks for them says `lacking` in the module of that name in tests/doubles."""
MAY_SKIP = os.environ.get("OCA_NO_SKIP", "0") in {"", "0"}


def _insist(report):
    if MAY_SKIP or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} was skipped, and OCA_NO_SKIP=1 forbids it: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Marks and `pytest.skip` in a test or a fixture."""
    return _insist((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """`importorskip` and `pytest.skip(allow_module_level=True)`."""
    return _insist((yield))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores, for `-n auto`: tests wait for disks, timers and other processes too."""
    return 1 + len(os.sched_getaffinity(0))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """What the machine can't do is no skip: nobody could make it run there, in CI neither. But it is said.

    Scenarios come first: their files take longest, and `make test`, which hands out whole files in this order, would
    have to wait for the last of them alone.
    """
    items.sort(key=lambda item: "scenarios" not in item.path.parts)
    said = config.stash[_LEFT_OUT] = []
    for mark, what in _NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(mark)]
        if not marked:
            continue
        # Here, because test_conftest.py lets this file stand alone.
        if missing := import_module(f"tests.doubles.{mark}").lacking():
            items[:] = [item for item in items if item not in marked]
            config.hook.pytest_deselected(items=marked)
            said.append(f"{len(marked)} {what} were LEFT OUT: this machine lacks {missing}")


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(_LEFT_OUT, []):
        terminalreporter.write_line(line, yellow=True, bold=True)
