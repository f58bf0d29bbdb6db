"""A real S3 server for the folder, and an empty prefix in it for each test."""

import itertools

import pytest

from fill.bucket import Bucket
from tests.doubles.s3 import S3Server, moto

_prefixes = itertools.count()


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def credentials(monkeypatch):
    for name, value in S3Server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3, credentials):
    return Bucket(f"s3://films/{next(_prefixes)}", s3.endpoint_url)
