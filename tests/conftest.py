"""For all tests: laws are judged without a clock, and where OCA_NO_SKIP=1 (.ci/run) a skipped test has failed."""

import os

import pytest
from hypothesis import settings

# A busy machine is no fault of the code: no deadline. In CI the same examples each time: a red run can be repeated.
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("house")

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
