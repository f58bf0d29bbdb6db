"""The `oca-steering` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import uvloop
from logging_journald import JournaldLogHandler, check_journal_stream

from steering.app import run
from steering.errors import SettingsError, SteeringError
from steering.inventory import Inventory, Source, apply, parse_inventory, reconciled
from steering.replay import Report, replay
from steering.settings import described, read_settings

_EXIT_CODES = """
exit codes:
  0  ended as told; for replay: every decision would be made again
  1  could not start or go on; for replay: some decision would be another one; the message says which
  2  the command line, the settings or the inventory file are wrong; the message names the line or key
"""

_SERVE = """Answer players and hear appliances until SIGTERM.

signals:
  SIGTERM, SIGINT  stop listening, let answers under way go out, save the view of the fleet
  SIGHUP           read the inventory file and the GeoIP databases anew, and open a new file for decisions
"""

_CHECK = "Check the settings, and the inventory file they name, without starting anything, and say what they mean."

_REPLAY = """Make logged decisions again, offline, and print those that would be others now.

LOG is what the setting decisions.path names; "-" reads standard input. Each line carries all that the ranking needs.
"""


def main() -> None:
    """Exits the process with one of the codes above."""
    given = _parser().parse_args()
    try:
        sys.exit(given.run(given))
    except SettingsError as error:
        _say(f"oca-steering: {error}")
        sys.exit(2)
    except SteeringError as error:
        _say(f"oca-steering: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # As a shell reports it.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oca-steering",
        description="Sends every player to the nearest healthy appliance.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve | check | replay")
    for name, words, act in (("serve", _SERVE, _serve), ("check", _CHECK, _check), ("replay", _REPLAY, _replay)):
        command = commands.add_parser(
            name,
            help=words.splitlines()[0],
            description=words,
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=act)
        if name == "replay":
            command.add_argument("log", metavar="LOG", help="file of decisions, or -")
        else:
            command.add_argument("--config", required=True, metavar="FILE", help="settings in TOML")
    return parser


def _serve(given: argparse.Namespace) -> int:
    settings = read_settings(given.config)
    level = os.environ.get("OCA_LOG_LEVEL", "INFO").upper()
    if check_journal_stream():
        journal = JournaldLogHandler("oca-steering", use_message_id=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[journal])
    else:
        logging.basicConfig(
            level=level, format="%(asctime)s oca-steering[%(process)d] %(levelname)s %(message)s", stream=sys.stderr
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run(settings))
        except* SteeringError as group:
            raise _first(group) from group
    return 0


def _check(given: argparse.Namespace) -> int:
    settings = read_settings(given.config)
    if settings.inventory is not None:
        try:
            text = Path(settings.inventory).read_text(encoding="utf-8")
            declared = parse_inventory(text, settings.inventory)
            inventory = Inventory()
            inventory = apply(inventory, *reconciled(inventory, declared, settings.inventory), source=Source.FILE)
        except (OSError, UnicodeDecodeError, SteeringError) as error:
            raise SettingsError(str(error)) from error
        _show(f"{settings.inventory}: good: {len(inventory.sites)} sites, {len(inventory.appliances)} appliances")
    _show(f"{given.config}: good: {described(settings)}")
    return 0


def _replay(given: argparse.Namespace) -> int:
    report = Report()
    try:
        with sys.stdin.buffer if given.log == "-" else Path(given.log).open("rb") as lines:
            for difference in replay(lines, report):
                _show(f"line {difference.line}, decision {difference.id}: {difference.what}")
    except OSError as error:
        raise SteeringError(f"{given.log}: can't be read: {error.strerror}") from error
    _show(
        f"{report.same} the same, {report.differences} different, {report.not_ranked} from lists; reasons: "
        + ", ".join(f"{reason} {count}" for reason, count in sorted(report.reasons.items()))
    )
    return 1 if report.differences else 0


def _first(group: BaseExceptionGroup[SteeringError]) -> SteeringError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SteeringError)
    return error


def _show(text: str) -> None:
    print(text)  # noqa: T201 - this is what was asked for


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - for the person


if __name__ == "__main__":
    main()
