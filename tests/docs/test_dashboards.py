"""Dashboards: what is committed is what the code says, and every query is one. (test_alerting.py asks all of them.)"""

import json
import re

import promql_parser
import pytest
import yaml

from admin.dashboards.__main__ import FOLDER
from admin.dashboards.board import MARKS, Board, Number, as_json
from admin.dashboards.boards import BOARDS
from tests.docs.metrics import DOCUMENT
from tests.docs.test_alerts import RULES

QUERIES = [(board.uid, query) for board in BOARDS for query in board.queries]
QUERIES += [("marks", query) for query in MARKS.values()]


def filled(query: str) -> str:
    """As Grafana asks it, of everything."""
    query = query.replace("$__rate_interval", "1m")
    return re.sub(r"\$(site|appliance|instance)", ".*", query)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_what_is_committed_is_current(board: Board):
    assert (FOLDER / f"{board.uid}.json").read_text() == as_json(board), "make dashboards writes it anew"


def test_there_is_no_other_dashboard():
    assert {path.stem for path in FOLDER.glob("*.json")} == {board.uid for board in BOARDS}


@pytest.mark.parametrize(("board", "query"), QUERIES)
def test_every_query_is_one(board, query):
    promql_parser.parse(filled(query))
    assert "$" not in filled(query), "of variables that there are"


def test_queries_ask_only_for_what_is_shown_and_for_labels_that_it_has():
    told = dict(re.findall(r"^\| `(oca_\w+)` \| \w+ \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))
    recorded = {
        rule["record"]
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    discovered = {"site", "operator", "country", "appliance", "instance", "job", "le"}
    for _, query in QUERIES:
        names = re.findall(r"\b(?:site:)?oca_\w+(?::\w+)?", query)
        own = set()
        for name in names:
            base = name if name in told else re.sub(r"_(bucket|count|sum)$", "", name)
            assert name in recorded or base in told, name
            own |= set(re.findall(r"`(\w+)`", told.get(base, "")))
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            asked = {label.strip() for label in labels.split(",")}
            assert asked <= own | discovered | {"version"}, (query, asked - own - discovered)


def test_rates_follow_the_zoom():
    for _, query in QUERIES:
        for window in re.findall(r"rate\([^\[]*\[([^\]]*)\]", query):
            assert window == "$__rate_interval", query


def test_panels_stand_in_whole_rows_and_say_what_they_measure():
    for board in BOARDS:
        for row in board.rows:
            assert sum(panel.width for panel in row.panels) % 24 == 0, (board.uid, row.title)
            assert len({panel.title for panel in row.panels}) == len(row.panels)
            for panel in row.panels:
                assert panel.queries
                assert all(
                    legend or isinstance(panel, Number) or panel.width == 24 or len(panel.queries) == 1
                    for legend in panel.queries
                )


def test_grafana_gets_the_source_as_a_variable_and_ids_that_stay():
    for board in BOARDS:
        made = json.loads(as_json(board))
        assert made["uid"] == board.uid
        assert made["editable"] is False
        assert made["templating"]["list"][0]["name"] == "datasource"
        assert {link["type"] for link in made["links"]} == {"dashboards"}
        panels = [panel for panel in made["panels"] if panel["type"] != "row"]
        assert len(panels) == sum(len(row.panels) for row in board.rows)
        for panel in panels:
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_alerts_lead_to_dashboards_that_there_are():
    known = {board.uid for board in BOARDS}
    led = set(re.findall(r"/d/([a-z-]+)", RULES[1].read_text()))
    assert led <= known
    assert "oca-steering" in led
