"""The `oca-fill` command."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import logging
import os
import sys
from pathlib import Path
from typing import Final

from logging_journald import JournaldLogHandler, check_journal_stream

from fill.errors import FillError
from fill.plans import Name

_EXIT_CODES: Final = """
exit codes:
  0  done
  1  something failed; the message says what
  2  the command line or the settings are wrong; the message names the line or key
  3  what a plan is made of can't be used: catalogue, demand, stock or fleet
  4  the bucket did not do what was asked
"""
_SYNC: Final = """Bring here what a plan is made of: demand, stock, the catalogue as a table, and the fleet.

The other commands do it by themselves; this one shows what is there.
"""
_DEMAND: Final = "Show what there is of demand: each day, who is missing, and what was watched most."
_PLAN: Final = """Make a night's plan: what each appliance should hold by morning.

Brings demand, stock, catalogue and fleet here, forecasts, places, and writes the plan beside earlier ones, with a
signed order for each appliance and a report. Nobody works on it before it is applied. The same demand, catalogue,
stock, fleet and wishes give the same plan.
"""
_DIFF: Final = """Compare two plans: what each appliance gains and loses by the second.

Without names, the latest plan with the one that is applied.
"""
_URGENT: Final = """Have appliances bring a title at once, outside their windows and beside their orders.

It is pledged until the date that is given, and nothing is given up for it: what has no room is reported by the agent.
"""
_AGENT: Final = """Fill this appliance: have the local oca bring, compare and pledge what its order names.

Runs until SIGTERM. Works inside the window of the appliance's own time zone, under a rate cap, and gives way to
viewers. Killed at any moment, it goes on where it was. Urgent orders are worked on at once.
"""
_PLANS: Final = "List plans, and say which one is applied."
_SHOW: Final = "Show a plan's report, or one appliance's order."
_APPLY: Final = """Have agents work on a plan.

Nothing is applied by itself: a plan is made, looked at (show, diff), and applied. Applying can be broken off and done
again.
"""
_STATUS: Final = "Show how far appliances are with their orders."
_KEYGEN: Final = """Make the key that orders are signed with, and print what agents' settings need to trust it.

FILE must not exist. Keep it where only the planner can read it.
"""


def main(argv: list[str] | None = None) -> None:
    """Exits the process with one of the codes above, unless all went well. None: what the process was started with."""
    given = _parser().parse_args(argv)
    level = os.environ.get("OCA_LOG_LEVEL", "INFO").upper()
    if check_journal_stream():
        journal = JournaldLogHandler("oca-fill", use_message_id=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[journal])
    else:
        logging.basicConfig(level=level, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        if given.command == "agent":
            _agent(given)
        else:
            # An appliance's agent must not pay for DuckDB and Arrow, which take 200 MB.
            from fill import commands  # noqa: PLC0415

            getattr(commands, given.command)(given)
    except FillError as error:
        sys.stderr.write(f"oca-fill: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # As a shell reports it.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oca-fill",
        description="Tomorrow's films on the right disks before breakfast.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=words.splitlines()[0],
            description=words,
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name != "keygen":
            made.add_argument(
                "--config", required=True, metavar="FILE", help="settings of the planner, or of the agent"
            )
        return made

    command("sync", _SYNC)
    watched = command("demand", _DEMAND)
    watched.add_argument("--days", type=_days, default=7, metavar="N", help="days to show, today included; default 7")
    watched.add_argument("--top", type=_days, default=10, metavar="N", help="titles to show; default 10")
    watched.add_argument("--renditions", action="store_true", help="renditions in place of titles")
    plan = command("plan", _PLAN)
    plan.add_argument("--night", type=_night, metavar="DATE", help="on which the window begins; default: the next one")
    plan.add_argument("--dry-run", action="store_true", help="show the report, and write nothing to the bucket")
    plan.add_argument("--offline", action="store_true", help="plan with what was brought here before")
    plan.add_argument("--json", action="store_true", help="the report as JSON")
    plan.add_argument("--out", type=Path, metavar="DIR", help="write report and plots there as well")
    diff = command("diff", _DIFF)
    diff.add_argument("before", nargs="?", type=_name, metavar="NIGHT/VERSION", help="default: the applied one")
    diff.add_argument("after", nargs="?", type=_name, metavar="NIGHT/VERSION", help="default: the latest")
    urgent = command("urgent", _URGENT)
    urgent.add_argument("--title", required=True, metavar="ID")
    urgent.add_argument("--rendition", action="append", metavar="NAME", help="by name; may be repeated; default: all")
    urgent.add_argument("--site", action="append", metavar="ID", help="may be repeated; default: all sites")
    urgent.add_argument("--appliance", action="append", metavar="ID", help="may be repeated; default: all of the sites")
    urgent.add_argument("--days", type=_days, default=7, metavar="N", help="that it stays pledged; default 7")
    agent = command("agent", _AGENT)
    agent.add_argument("--once", action="store_true", help="work on the order now, whatever the hour, and end")
    agent.add_argument("--check", action="store_true", help="read the settings, say what is wrong, and end")
    command("plans", _PLANS)
    show = command("show", _SHOW)
    show.add_argument("plan", nargs="?", type=_name, metavar="NIGHT/VERSION", help="default: the latest")
    show.add_argument("--appliance", metavar="ID", help="show its order")
    apply = command("apply", _APPLY)
    apply.add_argument("plan", nargs="?", type=_name, metavar="NIGHT/VERSION", help="default: the latest")
    apply.add_argument("--back", action="store_true", help="though a later plan is applied")
    command("status", _STATUS)
    command("keygen", _KEYGEN).add_argument("file", metavar="FILE", help="to write, in PEM")
    return parser


def _agent(given: argparse.Namespace) -> None:
    # The agent needs nothing of what plans, and what plans needs nothing of the agent.
    from fill.agent import app  # noqa: PLC0415
    from fill.agent.settings import read_settings as read_agent  # noqa: PLC0415

    agent = read_agent(given.config)
    if given.check:
        sys.stdout.write(f"{given.config} is right\n")
        return
    if not asyncio.run(app.run(agent, once=given.once)):
        sys.exit(1)


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 366:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: 1 to 366")
    return int(text)


def _night(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: a date such as 2026-11-25") from error


def _name(text: str) -> Name:
    night, _, version = text.partition("/")
    try:
        dt.date.fromisoformat(night)
    except ValueError:
        version = ""
    if not version.isdecimal():
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: a plan such as 2026-11-25/1")
    return Name(night, int(version))


if __name__ == "__main__":
    main()
