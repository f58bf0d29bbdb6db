"""Pages are given back after a rest, unless somebody else reads there as well."""

import os
import threading

import pytest

from oca.cache.keys import BLOCK_BYTES
from oca.edge import pages as module
from oca.edge.extents import OpenExtent
from oca.edge.kernel import cached_pages
from oca.edge.pages import Pages
from tests.oca.edge.disk import PATIENCE, opened

REST = module._REST


@pytest.fixture
def pages():
    built = Pages()
    yield built
    built.close()


@pytest.fixture
def extent(tmp_path):
    built = opened(tmp_path, os.urandom(BLOCK_BYTES + 4096))
    built.brought = 0b11
    built.read_by(1, 0.0)
    return built


def wait_given(extent: OpenExtent, block: int) -> None:
    """Until no page of the block is in memory."""
    for _ in range(int(PATIENCE / 0.01)):
        if cached_pages(extent.fd, block * BLOCK_BYTES, extent.length_of(block)) == 0:
            return
        threading.Event().wait(0.01)
    raise AssertionError("its pages stay")


def test_a_block_is_given_back_when_the_client_has_had_time_to_take_it(pages, extent):
    pages.sent(extent, 1, 1, 0.0)
    pages.look(REST / 2)
    assert extent.brought == 0b11
    pages.look(REST)
    assert extent.brought == 0b01
    wait_given(extent, 1)
    assert cached_pages(extent.fd, 0, BLOCK_BYTES) > 0


def test_a_block_that_somebody_else_reads_meanwhile_stays(pages, extent):
    pages.sent(extent, 0, 1, 0.0)
    extent.read_by(2, REST / 2)
    pages.look(REST)
    assert extent.brought == 0b11
    assert cached_pages(extent.fd, 0, BLOCK_BYTES) > 0


def test_what_waits_is_bounded(pages, extent):
    for _ in range(module._MOST + 10):
        pages.sent(extent, 0, 1, 0.0)
    assert len(pages._sent) == module._MOST
    pages.look(REST)
    assert not pages._sent
