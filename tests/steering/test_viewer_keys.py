"""The operator's key set, from a file and from a real HTTP server."""

import asyncio
import contextlib

import pytest

from steering.settings import PlaybackAccess
from steering.viewer_keys import ViewerKeys
from steering.viewers import MOST_KEY_SET_BYTES
from tests.doubles.origin import Origin
from tests.doubles.viewers import AUDIENCE, ISSUER, LoginService

OLD, NEW = LoginService(kid="old"), LoginService(kid="new")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def origin():
    with Origin() as one:
        yield one


@contextlib.asynccontextmanager
async def kept(where, folder, clock=None):
    """Keys that were looked for once."""
    keys = ViewerKeys(PlaybackAccess(where, ISSUER, AUDIENCE), folder, clock or Clock())
    await keys.prepare()
    task = asyncio.create_task(keys.run())
    await keys.keys_for("no such key")
    try:
        yield keys
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_keys_are_fetched_and_survive_a_restart_in_an_outage(origin, tmp_path):
    origin.put("/jwks.json", OLD.key_set())
    async with kept(f"{origin.url}/jwks.json", tmp_path) as keys:
        assert keys.keys.of("old") is not None
    origin.remove("/jwks.json")
    async with kept(f"{origin.url}/jwks.json", tmp_path) as keys:
        assert keys.keys.of("old") is not None
        assert keys.failures == 1


async def test_keys_are_read_from_a_file(tmp_path):
    (tmp_path / "jwks.json").write_bytes(OLD.key_set())
    async with kept(str(tmp_path / "jwks.json"), tmp_path) as keys:
        assert keys.keys.of("old") is not None


async def test_a_new_key_is_found_when_a_token_names_it(origin, tmp_path):
    origin.put("/jwks.json", OLD.key_set())
    clock = Clock()
    async with kept(f"{origin.url}/jwks.json", tmp_path, clock) as keys:
        origin.put("/jwks.json", NEW.key_set(OLD.jwk()))
        clock.now += 11
        assert (await keys.keys_for("new")).of("new") is not None
        assert keys.keys.of("old") is not None


async def test_made_up_key_ids_are_no_load_on_the_log_in_service(origin, tmp_path):
    origin.put("/jwks.json", OLD.key_set())
    async with kept(f"{origin.url}/jwks.json", tmp_path) as keys:
        for number in range(100):
            assert (await keys.keys_for(f"made-up-{number}")).of("old") is not None
        assert origin.count("/jwks.json") == 1


async def test_many_who_wait_for_a_key_ask_once(origin, tmp_path):
    origin.put("/jwks.json", OLD.key_set())
    clock = Clock()
    async with kept(f"{origin.url}/jwks.json", tmp_path, clock) as keys:
        origin.put("/jwks.json", NEW.key_set())
        clock.now += 11
        found = await asyncio.gather(*(keys.keys_for("new") for _ in range(50)))
        assert all(one.of("new") is not None for one in found)
        assert origin.count("/jwks.json") == 2


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"keys": []}', b" " * (MOST_KEY_SET_BYTES + 1)])
async def test_a_set_that_can_not_be_used_leaves_the_last_one(origin, tmp_path, body):
    origin.put("/jwks.json", OLD.key_set())
    clock = Clock()
    async with kept(f"{origin.url}/jwks.json", tmp_path, clock) as keys:
        origin.put("/jwks.json", body)
        clock.now += 11
        assert (await keys.keys_for("new")).of("old") is not None
        assert keys.failures == 1


async def test_without_any_set_there_are_no_keys(tmp_path):
    (tmp_path / "viewer-keys.json").write_bytes(b"half wri")
    async with kept(str(tmp_path / "nowhere.json"), tmp_path) as keys:
        assert keys.keys is None
        assert keys.failures == 1


async def test_a_redirect_is_not_followed(origin, tmp_path):
    origin.put("/jwks.json", OLD.key_set(), status=302, location="/elsewhere.json")
    origin.put("/elsewhere.json", OLD.key_set())
    async with kept(f"{origin.url}/jwks.json", tmp_path) as keys:
        assert keys.keys is None
