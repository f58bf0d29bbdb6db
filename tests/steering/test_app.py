"""What a replica does again and again."""

import asyncio

import pytest

from steering.app import every


async def test_what_fails_once_is_done_again(caplog):
    done = asyncio.Event()
    failures = iter([ValueError("once"), KeyError("twice")])

    def act():
        for failure in failures:
            raise failure
        done.set()

    task = asyncio.create_task(every(0.0, act))
    await asyncio.wait_for(done.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.exc_info[0] for record in caplog.records if record.name == "steering.app"] == [ValueError, KeyError]
