"""A keeper's hand for the worker's side: another process that writes the index."""

from collections.abc import Iterator

import pytest

from tests.oca.store.scribe import Scribe


@pytest.fixture(scope="package")
def scribe() -> Iterator[Scribe]:
    built = Scribe()
    yield built
    built.close()
