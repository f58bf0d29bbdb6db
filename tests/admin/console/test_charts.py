"""Queries of the console's charts: each is one, and asks only for metrics and labels that there are."""

import re

import promql_parser
import pytest

from admin.console.charts import PANELS
from tests.docs.metrics import DOCUMENT

QUERIES = [(title, query, line) for title, panel in PANELS.items() for line, query in panel.lines.items()]
TOLD = dict(re.findall(r"^\| `(oca_\w+)` \| \w+ \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))


@pytest.mark.parametrize("at", ['appliance="lis-1"', 'site="lis"', 'job!=""'])
@pytest.mark.parametrize(("title", "query", "line"), QUERIES)
def test_each_is_a_query_whatever_is_looked_at(title, query, line, at):
    promql_parser.parse(query.replace("$at", at))


@pytest.mark.parametrize(("title", "query", "line"), QUERIES)
def test_each_asks_for_what_appliances_tell(title, query, line):
    for name in re.findall(r"\boca_\w+", query):
        base = name if name in TOLD else re.sub(r"_(bucket|count|sum)$", "", name)
        assert base in TOLD
        by = re.findall(r"by \(([^)]*)\)", query)
        named = {label.strip() for labels in by for label in labels.split(",")} | set(re.findall(r"{{(\w+)}}", line))
        assert named - {"le"} <= set(re.findall(r"`(\w+)`", TOLD[base]))
