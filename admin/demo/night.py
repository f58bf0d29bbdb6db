"""A night on a button: what viewers watched becomes a plan, and agents bring it, with the programs that do it for real.

The window of a night is hours long and opens by the clock; the demo's agents are told to begin at once (`--once`). A
plan goes by days of demand: hours of viewers are made up (evening.py), beside those who watched here.
"""

import asyncio
import datetime as dt
import os
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from admin.bucket import Bucket, Upload
from admin.demo.evening import an_hour, hours_beside
from admin.demo.login import write_signing_key
from admin.demo.parts import Origin, Part, free_ports
from admin.demo.settings import HOST, agent_settings, control_url, planner_settings
from admin.errors import AdminError, MachineError, UsageError
from admin.processes import tethered
from wire.codec import WireError, decode
from wire.demand import demand_key
from wire.orders import Progress, progress_key, public_key_text

_SHIP_DEADLINE: Final = 30.0
_PLAN_DEADLINE: Final = 180.0
_FILL_DEADLINE: Final = 600.0
_LOOK: Final = 0.25
_ASK_DEADLINE: Final = 5.0
_MOST_REPORT: Final = 4 * 1024 * 1024
_MOST_WORDS: Final = 2000

AnswerT = TypeVar("AnswerT")


class Phase(StrEnum):
    """What the night is at."""

    NEVER = "never"
    """Nobody asked for one yet."""
    COUNTING = "counting"
    PLANNING = "planning"
    FILLING = "filling"
    DONE = "done"
    FAILED = "failed"


class SitePlan(Struct, frozen=True):
    """What the plan's report says of a site."""

    id: str
    predicted_peak_bytes: int
    pledged_before: float
    pledged_after: float


class AppliancePlan(Struct, frozen=True):
    """What the plan's report says of an appliance."""

    id: str
    bring_renditions: int
    bring_bytes: int
    keep_renditions: int


class Plan(Struct, frozen=True):
    night: str
    sites: tuple[SitePlan, ...]
    appliances: tuple[AppliancePlan, ...]
    warnings: tuple[str, ...] = ()


class Told(Struct, frozen=True):
    """The night as the page shows it."""

    phase: Phase = Phase.NEVER
    trouble: str = ""
    """What went wrong, if it failed."""
    away: tuple[str, ...] = ()
    """Appliances that were killed: they are neither asked nor filled."""
    plan: Plan | None = None
    agents: dict[str, Progress] = {}
    """How far each is, by appliance."""


class Night:
    """Nights of the demo, one at a time."""

    def __init__(self, folder: Path, origin: Origin, appliances: Mapping[str, Part], admin_url: str) -> None:
        """`folder` is the night's own. `appliances` are filled; steering answers operators at `admin_url`."""
        self.told = Told()
        self._folder = folder
        self._origin = origin
        self._appliances = appliances
        self._bucket = Bucket(control_url(origin), origin.endpoint_url, origin.session)
        self._task: asyncio.Task[None] | None = None
        self._ports = dict(zip(appliances, free_ports(len(appliances)), strict=True))
        folder.mkdir(parents=True)
        key = write_signing_key(folder / "orders.pem")
        (folder / "planner.toml").write_text(planner_settings(folder, origin, admin_url))
        for name, part in appliances.items():
            control, port = f"http://{HOST}:{part.control}", self._ports[name]
            text = agent_settings(name, folder / name, origin, control, port, public_key_text(key))
            (folder / f"{name}.toml").write_text(text)

    def begin(self, sizes: Mapping[str, int]) -> None:
        """`sizes` are the renditions of the film, in bytes by folder. Raises UsageError while a night is under way."""
        if self._task is not None and not self._task.done():
            raise UsageError("a night is under way; the next one begins after it")
        self.told = Told(Phase.COUNTING)
        self._task = asyncio.create_task(self._run(sizes), name="night")

    async def over(self) -> None:
        """Until the night that is under way, if any, is done or has failed."""
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Whatever is under way is ended."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self.over()

    async def _run(self, sizes: Mapping[str, int]) -> None:
        try:
            alive = [name for name, part in self._appliances.items() if part.is_alive]
            self._tell(away=tuple(name for name in self._appliances if name not in alive))
            timeout = aiohttp.ClientTimeout(total=_ASK_DEADLINE)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                await _within(_SHIP_DEADLINE, "demand", asyncio.to_thread(self._make_up, sizes))
                await _within(_SHIP_DEADLINE, "demand", self._count(session, alive))
                self._tell(phase=Phase.PLANNING)
                self._tell(plan=await _within(_PLAN_DEADLINE, "the plan", self._plan()))
                self._tell(phase=Phase.FILLING)
                await _within(_FILL_DEADLINE, "filling", self._fill(session, alive))
            self._tell(phase=Phase.DONE)
        except (AdminError, WireError, OSError) as error:
            self._tell(phase=Phase.FAILED, trouble=str(error)[:_MOST_WORDS])

    def _tell(self, **changes: object) -> None:
        self.told = msgspec.structs.replace(self.told, **changes)

    def _make_up(self, sizes: Mapping[str, int]) -> None:
        for at in hours_beside(dt.datetime.now(dt.UTC)):
            for name in self._appliances:
                path = "/" + demand_key(f"{at:%Y-%m-%d}", at.hour, name)
                self._bucket.put(Upload(path, an_hour(name, at, sizes), "application/vnd.apache.parquet", "no-store"))

    async def _count(self, session: aiohttp.ClientSession, names: Sequence[str]) -> None:
        """What was watched until now is in the bucket, before its hour is over."""
        for name in names:
            url = f"http://{HOST}:{self._appliances[name].control}/v1/demand/ship"
            try:
                async with session.post(url, timeout=aiohttp.ClientTimeout(total=_SHIP_DEADLINE)) as answer:
                    if answer.status != 200:
                        raise MachineError(f"{name} could not ship what was watched: {(await answer.text())[:500]}")
            except aiohttp.ClientError as error:
                raise MachineError(f"{name} does not answer: {error}") from error

    async def _plan(self) -> Plan:
        # Demand counts in a plan for the evening after it: today's in tomorrow's.
        night = str(dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1))
        said = await self._asked("plan", "--night", night, "--json")
        try:
            plan = msgspec.json.decode(said, type=Plan)
        except msgspec.DecodeError as error:
            raise MachineError(f"the planner's report can't be read: {error}") from error
        await self._asked("apply")
        return plan

    async def _asked(self, command: str, *words: str) -> bytes:
        """What `oca-fill` prints."""
        process = await self._started([command, "--config", str(self._folder / "planner.toml"), *words], None)
        try:
            said, complaints = await process.communicate()
        finally:
            await _ended(process)
        if process.returncode != 0:
            raise MachineError(f"oca-fill {command}: {_last_line(complaints)}")
        return said[:_MOST_REPORT]

    async def _fill(self, session: aiohttp.ClientSession, names: Sequence[str]) -> None:
        """An agent beside each appliance, until all of them have nothing left to do."""
        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self._fill_one(session, name))
        except ExceptionGroup as group_of_errors:
            raise group_of_errors.exceptions[0] from None

    async def _fill_one(self, session: aiohttp.ClientSession, name: str) -> None:
        log = self._folder / f"{name}.log"
        process = await self._started(["agent", "--once", "--config", str(self._folder / f"{name}.toml")], log)
        try:
            ending = asyncio.ensure_future(process.wait())
            while not ending.done():
                await asyncio.wait([ending], timeout=_LOOK)
                await self._look(session, name)
        finally:
            await _ended(process)
        if process.returncode != 0:
            raise MachineError(f"the agent of {name} could not bring everything: {_last_line(log.read_bytes())}")
        # What it said last is in the bucket: its own door is closed.
        if (last := await asyncio.to_thread(self._bucket.read, f"/{progress_key(name)}")) is not None:
            self._tell(agents=self.told.agents | {name: decode(last.body, Progress)})

    async def _look(self, session: aiohttp.ClientSession, name: str) -> None:
        try:
            async with session.get(f"http://{HOST}:{self._ports[name]}/v1/status") as answer:
                progress = msgspec.json.decode(await answer.content.read(_MOST_REPORT), type=Progress)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            return  # It has not begun yet, or is over.
        self._tell(agents=self.told.agents | {name: progress})

    async def _started(self, words: Sequence[str], log: Path | None) -> asyncio.subprocess.Process:
        sink = asyncio.subprocess.PIPE if log is None else log.open("wb")
        try:
            return await asyncio.create_subprocess_exec(
                *tethered([sys.executable, "-m", "fill", *words]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=os.environ | self._origin.environment,
                start_new_session=True,
            )
        finally:
            if not isinstance(sink, int):
                sink.close()


async def _within(seconds: float, what: str, work: Awaitable[AnswerT]) -> AnswerT:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise MachineError(f"{what} was not done within {seconds:.0f} s") from error


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
