"""`python -m oca.edge`: started by the supervisor, which passes everything as descriptors."""

from __future__ import annotations

import argparse
import socket
import sys

import uvloop

from oca.edge.app import run_worker
from oca.errors import OcaError
from oca.lifecycle import begin_child, keep_log, read_settings_from
from oca.settings import PORTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="oca.edge", description=__doc__)
    for name in ("settings", "board", "counters", "tickets", "run-dir", "ready", "ask", "log"):
        parser.add_argument(f"--{name}-fd", type=int, required=True)
    for name in PORTS:
        parser.add_argument(f"--{name}-fd", type=int)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--place", type=int, required=True)
    parser.add_argument("--row", type=int, required=True)
    parser.add_argument("--supervisor", type=int, required=True)
    given = parser.parse_args()
    begin_child("edge", given.supervisor)
    keep_log("edge", given.log_fd)
    try:
        uvloop.run(
            run_worker(
                read_settings_from(given.settings_fd),
                number=given.number,
                place=given.place,
                row=given.row,
                listeners={
                    name: socket.socket(fileno=fd) for name in PORTS if (fd := getattr(given, f"{name}_fd")) is not None
                },
                tickets_fd=given.tickets_fd,
                board_fd=given.board_fd,
                counters_fd=given.counters_fd,
                run_dir_fd=given.run_dir_fd,
                ready_fd=given.ready_fd,
                ask=socket.socket(fileno=given.ask_fd),
            )
        )
    except OcaError as error:
        print(f"oca: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
