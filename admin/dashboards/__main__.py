"""`python -m admin.dashboards`: writes each dashboard beside this file, as Grafana imports it."""

from pathlib import Path
from typing import Final

from admin.dashboards.board import as_json
from admin.dashboards.boards import BOARDS

FOLDER: Final = Path(__file__).parent


def main() -> None:
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(as_json(board))


if __name__ == "__main__":
    main()
