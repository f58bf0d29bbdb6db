"""What a dashboard is made of here, and how Grafana is told (grafana-foundation-sdk).

All of ours are alike: a variable for the data source, rows of panels on a grid of 24 columns, links from one to the
next that keep time and place, and marks for what was changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

_COLUMNS: Final = 24
_GRAPH_HEIGHT: Final = 8
_NUMBER_HEIGHT: Final = 4
_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_TAG: Final = "open-oca"


class Unit(StrEnum):
    """As Grafana spells them."""

    PLAIN = "short"
    BYTES = "decbytes"
    BITS_PER_SECOND = "bps"
    RATIO = "percentunit"
    SECONDS = "s"
    PER_SECOND = "reqps"
    MOMENT = "dateTimeFromNow"


class Rare(str):
    """A question that has no answer where all is well."""

    __slots__ = ()


@dataclass(frozen=True)
class Panel:
    title: str
    unit: Unit
    queries: Mapping[str, str]
    """In PromQL, by what their lines are called: `{{label}}` is a label's value."""
    words: str = ""
    width: int = 8


@dataclass(frozen=True)
class Number(Panel):
    """The last value, large. `warn` and `fail` are the values from which it is yellow and red; upside down if `fail` is
    the lesser.
    """

    warn: float | None = None
    fail: float | None = None
    width: int = 4


@dataclass(frozen=True)
class Graph(Panel):
    """Lines over time; `most` is where its axis ends."""

    is_stacked: bool = False
    most: float | None = None


@dataclass(frozen=True)
class Listing(Panel):
    """A table of what the labels of one query's series are, and their values now."""

    width: int = 24


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """Chosen at the top of the dashboard, from the values that a label has."""

    name: str
    query: str


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    words: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    @property
    def queries(self) -> tuple[str, ...]:
        return tuple(query for row in self.rows for panel in row.panels for query in panel.queries.values())


#: What is marked on all graphs. A version that was not there five minutes ago; appliances that are being emptied.
MARKS: Final = {
    "upgrades": Rare("oca_build_info unless on (appliance, version) oca_build_info offset 5m"),
    "drains": Rare('sum(oca_steering_appliances{standing=~"draining|drained"}) > 0'),
}


def as_json(board: Board) -> str:
    """As Grafana imports it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.words)
        .tags([_TAG])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Open Connect")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in board.variables:
        made.with_variable(
            dashboard.QueryVariable(variable.name)
            .query(variable.query)
            .datasource(_SOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(models.VariableOption(selected=True, text="All", value="$__all"))
        )
    for name, query in MARKS.items():
        made.annotation(
            dashboard.AnnotationQuery().name(name).datasource(_SOURCE).enable(True).expr(query).icon_color("blue")
        )
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_panel(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _panel(panel: Panel) -> Any:  # noqa: ANN401 the SDK's builders have no base of their own
    match panel:
        case Number():
            made: Any = stat.Panel().height(_NUMBER_HEIGHT).graph_mode(shapes.BigValueGraphMode.AREA)
            made.thresholds(_thresholds(panel))
            made.color_mode(shapes.BigValueColorMode.VALUE)
        case Listing():
            made = table.Panel().height(_GRAPH_HEIGHT)
        case _:
            made = (
                timeseries.Panel()
                .height(_GRAPH_HEIGHT)
                .min(0)
                .fill_opacity(10)
                .show_points(shapes.VisibilityMode.NEVER)
            )
            made.legend(
                common.VizLegendOptions()
                .display_mode(shapes.LegendDisplayMode.LIST)
                .placement(shapes.LegendPlacement.BOTTOM)
                .show_legend(True)
            )
            made.tooltip(
                common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING)
            )
            if isinstance(panel, Graph) and panel.is_stacked:
                made.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
            if isinstance(panel, Graph) and panel.most is not None:
                made.max(panel.most)
    made.title(panel.title).unit(panel.unit.value).span(panel.width).datasource(_SOURCE)
    if panel.words:
        made.description(panel.words)
    for place, (legend, query) in enumerate(panel.queries.items()):
        asked = prometheus.Dataquery().expr(query).legend_format(legend or "__auto").ref_id(chr(ord("A") + place))
        if isinstance(panel, Listing):
            asked.instant().format(PromQueryFormat.TABLE)
        made.with_target(asked)
    return made


def _thresholds(number: Number) -> dashboard.ThresholdsConfig:
    colours = ["green", "yellow", "red"]
    bounds: list[float | None] = [None, number.warn, number.fail]
    if number.warn is not None and number.fail is not None and number.fail < number.warn:
        colours, bounds = colours[::-1], [None, number.fail, number.warn]
    steps = [
        models.Threshold(value=bound, color=colour)
        for place, (bound, colour) in enumerate(zip(bounds, colours, strict=True))
        if place == 0 or bound is not None
    ]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def rows(*made: tuple[str, Sequence[Panel]]) -> tuple[Row, ...]:
    return tuple(Row(title, tuple(panels)) for title, panels in made)
