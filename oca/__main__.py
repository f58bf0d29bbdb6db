"""The `oca` command. argparse and not typer: an appliance that starts again has viewers waiting."""

from __future__ import annotations

import argparse
import asyncio
import sys

from oca.errors import OcaError, SettingsError
from oca.lifecycle import configure_logging
from oca.settings import Settings, read_settings
from oca.supervisor import serve as run_appliance

_EXIT_CODES = """
exit codes:
  0  ended as told
  1  could not start or go on (an address is taken, a folder can't be written, the index is not usable);
     the message says which
  2  the command line or the settings are wrong; the message names the line or key, what was read and what is allowed
"""

_SERVE = """Run the appliance until SIGTERM.

signals:
  SIGTERM, SIGINT  drain: new connections are refused, running responses finish, within http.drain_timeout;
                   a second one cuts them
  SIGHUP           read the settings anew and replace workers and keeper, without refusing or cutting a connection
                   (listen.* and appliance.state_dir can't change this way)
"""

_CHECK = "Check the settings without starting anything, and say what they mean."


def main() -> None:
    """Exits the process with one of the codes above."""
    given = _parser().parse_args()
    try:
        settings = read_settings(given.config)
    except SettingsError as error:
        _say(error)
        sys.exit(2)
    sys.exit(_check(given.config, settings) if given.command == "check" else _serve(given.config, settings))


def _serve(config: str, settings: Settings) -> int:
    configure_logging("oca")
    try:
        return asyncio.run(run_appliance(settings, lambda: read_settings(config)))
    except OcaError as error:
        _say(error)
        return 1


def _check(config: str, settings: Settings) -> int:
    print(  # noqa: T201 - this is what was asked for
        f"{config}: good: appliance {settings.appliance.id}, {settings.listen.workers} workers on "
        f"{settings.listen.http}, {len(settings.device)} device(s), {len(settings.parents)} parent(s), "
        f"origin {settings.origin.url}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="oca", description="A cache appliance for films.", epilog=_EXIT_CODES, formatter_class=shape
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve | check")
    for name, description in (("serve", _SERVE), ("check", _CHECK)):
        command = commands.add_parser(
            name,
            help=description.splitlines()[0],
            description=description,
            epilog=_EXIT_CODES,
            formatter_class=shape,
        )
        command.add_argument("--config", required=True, metavar="FILE", help="the settings file (TOML)")
    return parser


def _say(error: OcaError) -> None:
    print(f"oca: {error}", file=sys.stderr)  # noqa: T201 - before there is a log, and for a person


if __name__ == "__main__":
    main()
