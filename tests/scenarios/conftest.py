"""One origin and one appliance for all scenarios that leave them as they found them; others start their own."""

import contextlib
import itertools

import pytest

from tests.doubles.appliance import Appliance
from tests.doubles.origin import Origin

_running: list[Appliance] = []


@pytest.fixture(scope="session")
def origin():
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="session")
def appliance(origin, tmp_path_factory):
    """Shared by the whole session: each test uses paths of its own and leaves settings and processes alone."""
    shared = Appliance(tmp_path_factory.mktemp("shared"), origin.url)
    _running.append(shared)
    try:
        shared.start(freshness={"manifest": "200 ms", "negative": "1 s"})
        yield shared
        shared.stop()
    finally:
        _running.remove(shared)
        shared.kill_all()


@pytest.fixture(scope="module")
def module_appliance(tmp_path_factory):
    """Makes appliances that live as long as a module's tests."""
    yield from _maker(tmp_path_factory.mktemp("module"))


@pytest.fixture
def make_appliance(origin, tmp_path):
    """Makes appliances for one test, of the common origin unless another is given."""
    maker = _maker(tmp_path)
    make = next(maker)
    yield lambda source=None, **kwargs: make(source or origin.url, **kwargs)
    next(maker, None)


def _maker(folder):
    """Gives a function that makes appliances with folders of their own, not started yet; stops them at the end."""
    made: list[Appliance] = []

    def make(source, **kwargs):
        made.append(Appliance(folder / f"appliance-{len(made) + 1}", source, **kwargs))
        _running.append(made[-1])
        return made[-1]

    try:
        yield make
        for one in made:
            if one.process is not None:
                one.stop()
    finally:
        for one in made:
            _running.remove(one)
            one.kill_all()


@pytest.fixture
def second_origin():
    with Origin() as origin:
        yield origin


@pytest.fixture
def hold():
    """Hands through what has to be closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


_numbers = itertools.count(1)


@pytest.fixture
def path(request):
    """A path that no other test uses."""
    return f"/{request.node.originalname}/{next(_numbers)}.mp4"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        report.sections += [(f"log of {one.name} in {one.folder}", one.tail()) for one in _running]
    return report
