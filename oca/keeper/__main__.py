"""`python -m oca.keeper`: started by the supervisor, which passes everything as descriptors."""

from __future__ import annotations

import argparse
import socket
import sys

import uvloop

from oca.errors import OcaError
from oca.keeper.app import run_keeper
from oca.lifecycle import begin_child, keep_log, read_settings_from


def main() -> int:
    parser = argparse.ArgumentParser(prog="oca.keeper", description=__doc__)
    for name in ("settings", "board", "counters", "desk", "control", "lock", "tickets", "log"):
        parser.add_argument(f"--{name}-fd", type=int, required=True)
    parser.add_argument("--supervisor", type=int, required=True)
    given = parser.parse_args()
    begin_child("keeper", given.supervisor, given.lock_fd)
    ring = keep_log("keeper", given.log_fd)
    settings = read_settings_from(given.settings_fd)
    try:
        uvloop.run(
            run_keeper(
                settings,
                board_fd=given.board_fd,
                counters_fd=given.counters_fd,
                desk_socket=socket.socket(fileno=given.desk_fd),
                control_socket=socket.socket(fileno=given.control_fd),
                tickets_fd=given.tickets_fd,
                ring=ring,
            )
        )
    except OcaError as error:
        print(f"oca: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
