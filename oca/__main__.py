"""The `oca` command."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from oca.errors import OcaError, SettingsError
from oca.lifecycle import configure_logging
from oca.settings import Settings, read_settings
from oca.supervisor import serve as run_appliance

EXIT_CODES = """
Exit codes: 0 ended as told; 1 could not start or go on (an address is taken, a folder can't be written, the index is
not usable), the message says which; 2 the command line or the settings are wrong, the message names the line or key.
"""

app = typer.Typer(
    help="A cache appliance for films: edge workers, a keeper, and disks.\n\n" + EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option("--config", help="The settings file (TOML).", dir_okay=False)]


@app.command(epilog=EXIT_CODES)
def serve(config: Config) -> None:
    """Run the appliance until SIGTERM.

    SIGTERM and SIGINT drain: new connections are refused, running responses finish, within http.drain_timeout; a second
    signal cuts them. SIGHUP reads the settings anew and replaces workers and keeper without refusing or cutting a
    connection (listen.* and appliance.state_dir can't change this way).
    """
    settings = _settings(config)
    configure_logging("oca")
    try:
        code = asyncio.run(run_appliance(settings, lambda: read_settings(str(config))))
    except OcaError as error:
        _say(error)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


@app.command(epilog=EXIT_CODES)
def check(config: Config) -> None:
    """Check the settings without starting anything, and say what they mean."""
    settings = _settings(config)
    typer.echo(
        f"{config}: good: appliance {settings.appliance.id}, {settings.listen.workers} workers on "
        f"{settings.listen.http}, {len(settings.device)} device(s), {len(settings.parents)} parent(s), "
        f"origin {settings.origin.url}"
    )


def _settings(config: Path) -> Settings:
    try:
        return read_settings(str(config))
    except SettingsError as error:
        _say(error)
        raise typer.Exit(2) from error


def _say(error: OcaError) -> None:
    typer.echo(f"oca: {error}", err=True)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
