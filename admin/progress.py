"""What a person watching a command sees: bars on a terminal, plain lines in a log."""

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Step(Protocol):
    """One piece of work under way. May be called from several threads."""

    def reach(self, done: float) -> None:
        """So much of the step's total is done."""

    def note(self, text: str) -> None:
        """What there is to say of the step, shown beside it; the last note stays."""


class Watcher(Protocol):
    """Whoever is told of each step."""

    def step(self, name: str, total: float | None) -> AbstractContextManager[Step]:
        """A step that begins now; `total` is None when its length is not known."""

    def say(self, text: str) -> None:
        """A line of its own."""


def watcher() -> Watcher:
    """Bars where standard output is a terminal, else lines."""
    return Bars() if sys.stdout.isatty() else Lines()


class Silence:
    """For whoever wants results only."""

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:  # noqa: ARG002 - as a watcher has it
        yield _Unheard()

    def say(self, text: str) -> None:
        """Nobody hears it."""


class _Unheard:
    def reach(self, done: float) -> None:
        """Nobody hears it."""

    def note(self, text: str) -> None:
        """Nobody hears it."""


class Bars:
    """A bar for each step, drawn by rich."""

    def __init__(self) -> None:
        self._console = Console()

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(escape(name), total=total, note="")
            yield _Bar(progress, task)
            whole = progress.tasks[0].total or 1.0
            progress.update(task, total=whole, completed=whole)

    def say(self, text: str) -> None:
        self._console.print(escape(text))


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def reach(self, done: float) -> None:
        self._progress.update(self._task, completed=done)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=escape(text))


class Lines:
    """A line when a step begins, at each quarter, and at its end."""

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:
        line = _Line(name, total)
        yield line
        line.finish()

    def say(self, text: str) -> None:
        _print(text)


class _Line:
    def __init__(self, name: str, total: float | None) -> None:
        self._name = name
        self._total = total
        self._quarters = 0
        self._note = ""
        self._lock = threading.Lock()
        _print(f"{name} ...")

    def reach(self, done: float) -> None:
        if not self._total:
            return
        quarters = min(3, int(done * 4 / self._total))
        with self._lock:
            if quarters <= self._quarters:
                return
            self._quarters = quarters
        _print(f"{self._name}: {quarters * 25} %")

    def note(self, text: str) -> None:
        self._note = text

    def finish(self) -> None:
        _print(f"{self._name}: done" + (f", {self._note}" if self._note else ""))


def _print(text: str) -> None:
    # Flushed at once: whoever reads a pipe wants to know what runs now, and what had finished when a run was killed.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
