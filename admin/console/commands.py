"""oca-admin serve, and the hash of a password for its settings: argv in, exit code out."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from logging_journald import JournaldLogHandler, check_journal_stream

from admin.console.accounts import LEAST_PASSWORD, MOST_PASSWORD, hashed
from admin.console.app import serve
from admin.console.settings import read_settings
from admin.errors import UsageError
from admin.progress import watcher
from admin.reporting import reported

_CODES = "Exit codes: 0 it was ended; 2 the settings can't be used; 4 the bucket can't; 6 this machine lacks something."


def add_commands(app: typer.Typer) -> None:
    app.command(name="serve", epilog=_CODES)(serve_command)
    app.command(name="password", epilog="Exit codes: 0 done; 2 the password can't be used.")(password_command)


def serve_command(
    *,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="Its settings, in TOML.")],
    check: Annotated[bool, typer.Option("--check", help="Only say whether the settings can be used.")] = False,
) -> None:
    """Serve the NOC's console: the fleet in a browser, live, and what is to be done about it."""
    with reported("serve", interrupted="ended"):
        settings = read_settings(config)
        if check:
            watcher().say(f"{config}: can be used")
            return
        if check_journal_stream():
            journal = JournaldLogHandler("oca-admin", use_message_id=False)
            logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[journal])
        else:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        asyncio.run(serve(settings, lambda where: watcher().say(f"the console is at {where}")))


def password_command() -> None:
    """Ask for a password, and print its hash for an [[account]] of the console's settings. Piped in: its first line."""
    with reported("password", interrupted="interrupted"):
        if sys.stdin.isatty():
            given = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        else:
            given = sys.stdin.readline(MOST_PASSWORD + 2).rstrip("\n")
        if not LEAST_PASSWORD <= len(given) <= MOST_PASSWORD:
            raise UsageError(f"it has {len(given)} characters; allowed: {LEAST_PASSWORD} to {MOST_PASSWORD}")
        sys.stdout.write(hashed(given) + "\n")
