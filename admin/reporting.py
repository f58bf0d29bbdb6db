"""How a command says that it failed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from admin.errors import AdminError


@contextmanager
def reported(command: str, *, interrupted: str, failed: int | None = None) -> Iterator[None]:
    """Say in one line why the command failed, and exit with the code of that failure, or with `failed` if given."""
    try:
        yield
    except AdminError as error:
        _leave(f"oca-admin {command}: {' '.join(str(error).split())}", failed or error.exit_code)
    except KeyboardInterrupt:
        _leave(f"oca-admin {command}: {interrupted}", 130)


def _leave(line: str, code: int) -> NoReturn:
    sys.stderr.write(line + "\n")
    raise typer.Exit(code)
