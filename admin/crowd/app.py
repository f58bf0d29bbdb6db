"""A crowd from its first viewer to its last."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvloop
from msgspec import Struct

from admin.crowd.account import Account, Report, as_json, as_rows, draw, report_of
from admin.crowd.model import Showing
from admin.crowd.places import Direct, Source, Steered
from admin.crowd.viewer import Habits, Viewer
from admin.errors import AdminError, MachineError, UsageError
from admin.progress import Watcher

_MOST_VIEWERS: Final = 20_000
_DESCRIPTORS: Final = 5
"""For each viewer: two connections to each of two places, and one to steering."""
_AGAIN: Final = 2.0
"""Seconds until a viewer whom play was refused tries again."""
_MOST_TOKENS: Final = 1_000_000


class NotFlawless(AdminError):
    """There were stalls or errors, and `strict` was asked for."""

    exit_code = 1


class Plan(Struct, frozen=True):
    """What is asked of a crowd."""

    viewers: int
    seconds: float
    ramp: float
    """Seconds over which they come."""
    habits: Habits
    seed: int = 0


def source_of(
    steering: str | None,
    title: str | None,
    manifests: Sequence[str],
    token_file: Path | None,
    networks: Sequence[str],
    seed: int,
) -> Source:
    """Raises UsageError."""
    if bool(manifests) == (steering is not None):
        raise UsageError("give --steering with --title, or --manifest: one of them")
    if steering is None:
        if title is not None or token_file is not None or networks:
            raise UsageError("--title, --tokens and --from go with --steering")
        for url in manifests:
            if not url.startswith(("http://", "https://")) or not url.endswith(".m3u8"):
                raise UsageError(f"--manifest {url!r} is no address of an HLS playlist: http(s)://host/.../master.m3u8")
        return Direct(manifests)
    if title is None:
        raise UsageError("--title is missing: what the crowd watches")
    if not steering.startswith(("http://", "https://")):
        raise UsageError(f"--steering {steering!r} is no address: http(s)://host")
    return Steered(steering, title, _tokens(token_file), _addresses(networks, random.Random(seed)))


def run(plan: Plan, source: Source, watcher: Watcher) -> tuple[Report, Account]:
    """Let them watch. Raises AdminError."""
    if not 1 <= plan.viewers <= _MOST_VIEWERS:
        raise UsageError(f"--viewers {plan.viewers}; allowed: 1 to {_MOST_VIEWERS}")
    _raise_file_limit(plan.viewers)
    account = Account()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_watched(plan, source, account, watcher))
    return report_of(account), account


def told(report: Report, account: Account, watcher: Watcher, json: Path | None, plot: Path | None) -> None:
    """Show the figures, and write the files that were asked for. Raises AdminError."""
    rows = as_rows(report)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        watcher.say(f"{name:<{width}}  {value}")
    try:
        if json is not None:
            json.write_bytes(as_json(report, account))
        if plot is not None:
            draw(report, account, str(plot))
    except OSError as error:
        raise UsageError(f"{error.filename}: can't be written: {error.strerror}") from error
    except ImportError as error:
        raise MachineError("--plot needs the package matplotlib; pip install 'open-oca[planner]'") from error


async def _watched(plan: Plan, source: Source, account: Account, watcher: Watcher) -> None:
    began = time.monotonic()
    ends_at = began + plan.seconds
    watching: set[Viewer] = set()

    async def seat(number: int) -> None:
        """One viewer after the other: who leaves gives way to a new one, so that the crowd keeps its size."""
        dice = random.Random(f"{plan.seed} {number}")
        await asyncio.sleep(plan.ramp * number / plan.viewers)
        visit = 0
        while time.monotonic() < ends_at:
            viewer = Viewer(number + plan.viewers * visit, source, account, plan.habits, dice, ends_at)
            watching.add(viewer)
            try:
                await viewer.watch()
            finally:
                watching.discard(viewer)
            visit += 1
            if viewer.screen.start_seconds is None:
                await asyncio.sleep(min(_AGAIN, max(0.0, ends_at - time.monotonic())))

    async with asyncio.TaskGroup() as group:
        seats = [group.create_task(seat(number)) for number in range(plan.viewers)]
        with watcher.step("crowd", plan.seconds) as step:
            for second in range(int(plan.seconds)):
                await asyncio.sleep(max(0.0, began + second + 1 - time.monotonic()))
                stalled = sum(viewer.screen.state is Showing.STALLED for viewer in watching)
                account.tick(second, len(watching), stalled)
                step.reach(second + 1)
                failed = sum(visit.failure is not None for visit in account.visits)
                rate = account.moments[-1].bits / 1e6
                step.note(f"{len(watching)} watch, {stalled} stalled, {failed} errors, {rate:.0f} Mbit/s")
        with suppress(TimeoutError):
            # Those in the middle of a file leave when it is there.
            async with asyncio.timeout(60):
                await asyncio.wait(seats)


def _tokens(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        with path.open(encoding="ascii") as file:
            tokens = [line.strip() for line, _ in zip(file, range(_MOST_TOKENS), strict=False) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--tokens {path}: can't be read: {error}") from error
    if not tokens:
        raise UsageError(f"--tokens {path}: has no line with a token")
    return tokens


def _addresses(networks: Sequence[str], dice: random.Random) -> list[str]:
    """A thousand of each network."""
    found = []
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise UsageError(f"--from {text!r}: {error}; allowed: networks such as 192.0.2.0/24") from error
        found += [str(network[dice.randrange(network.num_addresses)]) for _ in range(1000)]
    dice.shuffle(found)
    return found


def _raise_file_limit(viewers: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = viewers * _DESCRIPTORS + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise MachineError(
            f"{viewers} viewers need {wanted} file descriptors, and this shell allows {hard} (ulimit -Hn)"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
