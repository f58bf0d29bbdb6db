"""The six dashboards, as data. Each query is tried by a test against a Prometheus that watches a fleet."""

from __future__ import annotations

from typing import Final

from admin.dashboards.board import Board, Graph, Listing, Number, Rare, Unit, Variable, rows

_SITE: Final = Variable("site", 'label_values(up{job="oca"}, site)')

_APPLIANCE: Final = Variable("appliance", 'label_values(up{job="oca", site=~"$site"}, appliance)')

_REPLICA: Final = Variable("instance", 'label_values(up{job="oca-steering"}, instance)')


def _rate(metric: str, by: str = "", at: str = 'site=~"$site"') -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{at}}}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str = "", at: str = 'site=~"$site"') -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{at}}}[$__rate_interval])))"


FLEET: Final = Board(
    uid="oca-fleet",
    title="Open Connect: fleet",
    words="All sites: what viewers get, and where it hurts.",
    rows=rows(
        (
            "Now",
            [
                Number("Appliances that answer", Unit.PLAIN, {"": 'sum(up{job="oca"})'}),
                Number("Appliances lost", Unit.PLAIN, {"": 'count(up{job="oca"} == 0) or vector(0)'}, warn=1, fail=3),
                Number("To viewers", Unit.BITS_PER_SECOND, {"": "8 * sum(site:oca_egress_bytes:rate5m)"}),
                Number(
                    "From own devices",
                    Unit.RATIO,
                    {
                        "": "sum(rate(oca_hit_bytes_total[$__rate_interval]))"
                        " / (sum(rate(oca_hit_bytes_total[$__rate_interval]))"
                        " + sum(rate(oca_miss_bytes_total[$__rate_interval])))"
                    },
                    "Share of the bytes sent.",
                    warn=0.9,
                    fail=0.7,
                ),
                Number("Viewers who say how they are", Unit.PLAIN, {"": "sum(oca_viewers)"}),
                Number("Alerts", Unit.PLAIN, {"": 'count(ALERTS{alertstate="firing"}) or vector(0)'}, warn=1, fail=10),
            ],
        ),
        (
            "Viewers",
            [
                Graph(
                    "To viewers, by country",
                    Unit.BITS_PER_SECOND,
                    {"{{country}}": "8 * sum by (country) (site:oca_egress_bytes:rate5m)"},
                    is_stacked=True,
                ),
                Graph(
                    "Failed, ten worst sites",
                    Unit.RATIO,
                    {"{{site}}": "topk(10, site:oca_unavailable:ratio_rate5m)"},
                    "Answers with 5xx or cut, of all. The budget is 0.1 %.",
                ),
                Graph(
                    "First byte after 0.5 s, ten worst sites",
                    Unit.RATIO,
                    {"{{site}}": "topk(10, site:oca_late_first_byte:ratio_rate5m)"},
                    "The budget is 1 %.",
                ),
            ],
        ),
        (
            "Capacity",
            [
                Graph(
                    "Links, ten fullest sites",
                    Unit.RATIO,
                    {"{{site}}": "topk(10, site:oca_link_utilisation:ratio)"},
                    most=1,
                ),
                Graph(
                    "Fetched, by source",
                    Unit.BITS_PER_SECOND,
                    {"{{source}}": "8 * sum by (source) (rate(oca_fetch_bytes_total[$__rate_interval]))"},
                    "Misses and fill together. `origin` is paid for.",
                    is_stacked=True,
                ),
                Graph(
                    "From own devices, ten lowest sites",
                    Unit.RATIO,
                    {"{{site}}": "bottomk(10, site:oca_hit_bytes:ratio_rate1h)"},
                    most=1,
                ),
            ],
        ),
        (
            "What is wrong",
            [
                Listing("Alerts", Unit.PLAIN, {"": Rare('ALERTS{alertstate="firing"}')}),
                Listing("Appliances that do not answer", Unit.PLAIN, {"": Rare('up{job="oca"} == 0')}),
            ],
        ),
    ),
)

SITE: Final = Board(
    uid="oca-site",
    title="Open Connect: site",
    words="One site or several: what their viewers get, and what it takes.",
    variables=(_SITE,),
    rows=rows(
        (
            "Viewers",
            [
                Graph(
                    "Answers",
                    Unit.PER_SECOND,
                    {"{{outcome}}": _rate("oca_requests_total", by="outcome")},
                    is_stacked=True,
                ),
                Graph(
                    "Failed",
                    Unit.RATIO,
                    {"{{site}}": 'site:oca_unavailable:ratio_rate5m{site=~"$site"}'},
                    "The budget is 0.1 %.",
                ),
                Graph(
                    "First byte",
                    Unit.SECONDS,
                    {
                        "{{outcome}} median": _quantile(0.5, "oca_first_byte_seconds", "outcome"),
                        "{{outcome}} 99 %": _quantile(0.99, "oca_first_byte_seconds", "outcome"),
                    },
                ),
            ],
        ),
        (
            "Content",
            [
                Graph(
                    "Sent, by where it lay",
                    Unit.BITS_PER_SECOND,
                    {"{{tier}}": "8 * " + _rate("oca_egress_bytes_total", by="tier")},
                    "`memory` is what was on its way in.",
                    is_stacked=True,
                ),
                Graph(
                    "From own devices",
                    Unit.RATIO,
                    {"{{site}}": 'site:oca_hit_bytes:ratio_rate1h{site=~"$site"}'},
                    most=1,
                ),
                Graph(
                    "Fetched",
                    Unit.BITS_PER_SECOND,
                    {"{{source}}": "8 * " + _rate("oca_fetch_bytes_total", by="source")},
                    is_stacked=True,
                ),
            ],
        ),
        (
            "Machines",
            [
                Graph(
                    "Links",
                    Unit.RATIO,
                    {
                        "{{site}}": 'site:oca_link_utilisation:ratio{site=~"$site"}',
                        "{{site}}, a day ago": Rare('site:oca_link_utilisation:ratio{site=~"$site"} offset 1d'),
                    },
                    most=1,
                ),
                Graph("Cores", Unit.RATIO, {"{{appliance}}": 'oca_cpu_ratio{site=~"$site"}'}, most=1),
                Graph(
                    "Well",
                    Unit.RATIO,
                    {"{{appliance}}": 'oca_health_ratio{site=~"$site"}'},
                    "Share of the devices' room.",
                    most=1,
                ),
            ],
        ),
        ("Appliances", [Listing("Standing", Unit.PLAIN, {"": 'up{job="oca", site=~"$site"}'})]),
    ),
)

_BOX: Final = 'appliance=~"$appliance"'

APPLIANCE: Final = Board(
    uid="oca-appliance",
    title="Open Connect: appliance",
    words="One appliance: tiers, devices, network, sources.",
    variables=(_SITE, _APPLIANCE),
    rows=rows(
        (
            "Now",
            [
                Number("Answers Prometheus", Unit.PLAIN, {"": f'min(up{{job="oca", {_BOX}}})'}, warn=1, fail=0.5),
                Number("Workers", Unit.PLAIN, {"": f"sum(oca_worker_up{{{_BOX}}})"}),
                Number("Connections", Unit.PLAIN, {"": f"sum(oca_open_connections{{{_BOX}}})"}),
                Number("To viewers", Unit.BITS_PER_SECOND, {"": "8 * " + _rate("oca_egress_bytes_total", at=_BOX)}),
                Number("Devices well", Unit.RATIO, {"": f"min(oca_health_ratio{{{_BOX}}})"}, warn=0.99, fail=0.8),
                Number("Kept for fill", Unit.RATIO, {"": f"max(oca_pledged_ratio{{{_BOX}}})"}),
            ],
        ),
        (
            "Viewers",
            [
                Graph(
                    "Answers",
                    Unit.PER_SECOND,
                    {"{{outcome}} {{status_class}}": _rate("oca_requests_total", by="outcome, status_class", at=_BOX)},
                ),
                Graph(
                    "First byte",
                    Unit.SECONDS,
                    {
                        "{{outcome}} median": _quantile(0.5, "oca_first_byte_seconds", "outcome", _BOX),
                        "{{outcome}} 99 %": _quantile(0.99, "oca_first_byte_seconds", "outcome", _BOX),
                    },
                ),
                Graph(
                    "Not let in, cut off, too slow",
                    Unit.PER_SECOND,
                    {
                        "refused: {{reason}}": Rare(_rate("oca_access_refusals_total", by="reason", at=_BOX)),
                        "cut": _rate("oca_cut_responses_total", at=_BOX),
                        "too slow: {{deadline}}": _rate("oca_client_timeouts_total", by="deadline", at=_BOX),
                        "too many": _rate("oca_refused_connections_total", at=_BOX),
                    },
                ),
            ],
        ),
        (
            "Tiers and devices",
            [
                Graph(
                    "Sent, by tier",
                    Unit.BITS_PER_SECOND,
                    {"{{tier}}": "8 * " + _rate("oca_egress_bytes_total", by="tier", at=_BOX)},
                    is_stacked=True,
                ),
                Graph(
                    "Written, by tier and why",
                    Unit.BYTES,
                    {"{{tier}} {{by}}": _rate("oca_written_bytes_total", by="tier, by", at=_BOX)},
                    "Bytes a second.",
                ),
                Graph(
                    "Newcomers",
                    Unit.PER_SECOND,
                    {"{{reason}}": _rate("oca_admissions_total", by="reason", at=_BOX)},
                    "Blocks, by what became of them.",
                ),
                Graph(
                    "Used",
                    Unit.RATIO,
                    {"{{device}}": f"oca_device_used_bytes{{{_BOX}}} / oca_device_capacity_bytes{{{_BOX}}}"},
                    most=1,
                ),
                Graph(
                    "A cold read takes",
                    Unit.SECONDS,
                    {
                        "{{device}}": Rare(
                            _rate("oca_device_busy_seconds_total", by="device", at=_BOX)
                            + " / "
                            + _rate("oca_device_reads_total", by="device", at=_BOX)
                        )
                    },
                    "On average, by device.",
                ),
                Graph(
                    "Faults",
                    Unit.PLAIN,
                    {
                        "{{device}} {{fault}}": Rare(
                            f"sum by (device, fault) (increase(oca_device_faults_total{{{_BOX}}}[1h]))"
                        )
                    },
                    "In an hour.",
                ),
                Graph("Scrubbed", Unit.RATIO, {"{{device}}": Rare(f"oca_scrub_progress_ratio{{{_BOX}}}")}, most=1),
                Graph(
                    "Moved",
                    Unit.PER_SECOND,
                    {"{{reason}}": _rate("oca_moves_total", by="reason", at=_BOX)},
                    "Extents a second.",
                ),
                Listing("Devices", Unit.PLAIN, {"": f"oca_device_standing{{{_BOX}}} == 1"}, width=8),
            ],
        ),
        (
            "Network and sources",
            [
                Graph(
                    "Link",
                    Unit.BITS_PER_SECOND,
                    {
                        "{{appliance}} sends": f"8 * oca_link_egress_bytes_per_second{{{_BOX}}}",
                        "{{appliance}} could": f"8 * oca_link_capacity_bytes_per_second{{{_BOX}}}",
                    },
                ),
                Graph(
                    "Fetched",
                    Unit.BITS_PER_SECOND,
                    {"{{source}}": "8 * " + _rate("oca_fetch_bytes_total", by="source", at=_BOX)},
                    is_stacked=True,
                ),
                Graph(
                    "Sources that fail",
                    Unit.PER_SECOND,
                    {
                        "{{source}} {{reason}}": Rare(_rate("oca_fetch_errors_total", by="source, reason", at=_BOX)),
                        "{{source}} breaker: 0 closed, 2 open": f"oca_breaker_state{{{_BOX}}}",
                    },
                ),
                Graph("Cores", Unit.RATIO, {"{{appliance}}": f"oca_cpu_ratio{{{_BOX}}}"}, most=1),
                Graph(
                    "Told to steering",
                    Unit.PER_SECOND,
                    {"{{outcome}}": _rate("oca_reports_total", by="outcome", at=_BOX)},
                ),
                Graph(
                    "Demand not shipped", Unit.PLAIN, {"{{appliance}}": f"oca_demand_spooled_hours{{{_BOX}}}"}, "Hours."
                ),
            ],
        ),
    ),
)

_AT: Final = 'instance=~"$instance"'

STEERING: Final = Board(
    uid="oca-steering",
    title="Open Connect: steering",
    words="Replicas of steering: what they decide, what they hear, what they know.",
    variables=(_REPLICA,),
    rows=rows(
        (
            "Decisions",
            [
                Graph(
                    "How it was asked",
                    Unit.PER_SECOND,
                    {"{{way}}": _rate("oca_steering_decisions_total", by="way", at=_AT)},
                    is_stacked=True,
                ),
                Graph(
                    "What answered",
                    Unit.PER_SECOND,
                    {"{{fallback}}": _rate("oca_steering_decisions_total", by="fallback", at=_AT)},
                    "All but `ranked` are fallbacks.",
                    is_stacked=True,
                ),
                Graph(
                    "Why",
                    Unit.PER_SECOND,
                    {"{{reason}} {{proximity}}": _rate("oca_steering_decisions_total", by="reason, proximity", at=_AT)},
                    is_stacked=True,
                ),
                Graph(
                    "A decision takes",
                    Unit.SECONDS,
                    {
                        "median": _quantile(0.5, "oca_steering_decision_seconds", at=_AT),
                        "99 %": _quantile(0.99, "oca_steering_decision_seconds", at=_AT),
                    },
                ),
                Graph(
                    "Sites, ten most chosen",
                    Unit.PER_SECOND,
                    {"{{site}}": "topk(10, " + _rate("oca_steering_site_decisions_total", by="site", at=_AT) + ")"},
                ),
                Graph(
                    "Turned away",
                    Unit.PER_SECOND,
                    {
                        "too fast": _rate("oca_steering_limited_total", at=_AT),
                        "no whole request": _rate("oca_steering_loiterers_total", at=_AT),
                        "viewer: {{reason}}": Rare(_rate("oca_steering_viewers_refused_total", by="reason", at=_AT)),
                    },
                ),
            ],
        ),
        (
            "The fleet, as replicas see it",
            [
                Graph(
                    "Appliances, by standing",
                    Unit.PLAIN,
                    {"{{standing}}": f"max by (standing) (oca_steering_appliances{{{_AT}}})"},
                    is_stacked=True,
                ),
                Graph(
                    "Heard",
                    Unit.PER_SECOND,
                    {
                        "heartbeats": _rate("oca_steering_heartbeats_total", at=_AT),
                        "holdings": _rate("oca_steering_holdings_total", at=_AT),
                        "prefixes": _rate("oca_steering_reports_total", at=_AT),
                        "refused": _rate("oca_steering_refused_total", at=_AT),
                    },
                ),
                Graph(
                    "Prefixes",
                    Unit.PLAIN,
                    {
                        "{{instance}} known": f"oca_steering_prefixes{{{_AT}}}",
                        "{{instance}} without a second": f"oca_steering_prefixes_without_second{{{_AT}}}",
                        "refused: {{reason}}": Rare(f"sum by (reason) (oca_steering_prefixes_refused{{{_AT}}})"),
                    },
                ),
            ],
        ),
        (
            "Replicas",
            [
                Graph("Late loops", Unit.SECONDS, {"{{instance}}": f"oca_steering_loop_lag_seconds{{{_AT}}}"}),
                Graph(
                    "Inventory",
                    Unit.PLAIN,
                    {"{{instance}}": f"oca_steering_inventory_version{{{_AT}}}"},
                    "Versions: replicas agree.",
                ),
                Graph("Connections", Unit.PLAIN, {"{{instance}}": f"oca_steering_connections{{{_AT}}}"}),
                Graph(
                    "Presses on play",
                    Unit.PER_SECOND,
                    {"{{reason}}": Rare(_rate("oca_steering_playbacks_total", by="reason", at=_AT))},
                ),
                Graph(
                    "DNS", Unit.PER_SECOND, {"{{reason}}": Rare(_rate("oca_steering_dns_total", by="reason", at=_AT))}
                ),
                Listing(
                    "Certificates and databases",
                    Unit.MOMENT,
                    {
                        "certificates": Rare(f"1000 * oca_steering_certificate_end_timestamp_seconds{{{_AT}}}"),
                        "databases": Rare(f"1000 * oca_steering_database_build_timestamp_seconds{{{_AT}}}"),
                    },
                    width=8,
                ),
            ],
        ),
    ),
)

_FILLED: Final = 'site=~"$site"'

FILL: Final = Board(
    uid="oca-fill",
    title="Open Connect: fill night",
    words="How far appliances are with tonight's orders.",
    variables=(_SITE,),
    rows=rows(
        (
            "Tonight",
            [
                Number(
                    "Here",
                    Unit.RATIO,
                    {
                        "": f"sum(oca_fill_done_bytes{{{_FILLED}}})"
                        f" / (sum(oca_fill_order_bytes{{{_FILLED}}}) > 0) or vector(1)"
                    },
                ),
                Number(
                    "Still to come",
                    Unit.BYTES,
                    {"": f"sum(oca_fill_order_bytes{{{_FILLED}}} - oca_fill_done_bytes{{{_FILLED}}})"},
                ),
                Number(
                    "Coming in", Unit.BITS_PER_SECOND, {"": "8 * " + _rate("oca_fill_source_bytes_total", at=_FILLED)}
                ),
                Number(
                    "Behind",
                    Unit.PLAIN,
                    {"": f"sum(oca_fill_behind_schedule{{{_FILLED}}})"},
                    "Appliances.",
                    warn=1,
                    fail=5,
                ),
                Number("Urgent, waiting", Unit.PLAIN, {"": f"sum(oca_fill_urgent_waiting{{{_FILLED}}})"}),
                Number("Agents that answer", Unit.PLAIN, {"": f'sum(up{{job="oca-agent", {_FILLED}}})'}),
            ],
        ),
        (
            "How it goes",
            [
                Graph(
                    "Here, by site",
                    Unit.RATIO,
                    {
                        "{{site}}": Rare(
                            f"sum by (site) (oca_fill_done_bytes{{{_FILLED}}})"
                            f" / (sum by (site) (oca_fill_order_bytes{{{_FILLED}}}) > 0)"
                        )
                    },
                    most=1,
                ),
                Graph(
                    "Coming in, by source",
                    Unit.BITS_PER_SECOND,
                    {"{{source}}": "8 * " + _rate("oca_fill_source_bytes_total", by="source", at=_FILLED)},
                    is_stacked=True,
                ),
                Graph(
                    "Of the cap",
                    Unit.RATIO,
                    {"{{appliance}}": f"oca_fill_rate_ratio{{{_FILLED}}}"},
                    "Below 1, viewers need the rest.",
                    most=1,
                ),
                Graph(
                    "Renditions",
                    Unit.PLAIN,
                    {"{{result}}": f"sum by (result) (increase(oca_fill_renditions_total{{{_FILLED}}}[1h]))"},
                    "In an hour, by how it ended.",
                ),
                Graph(
                    "Orders refused",
                    Unit.PLAIN,
                    {"{{reason}}": f"sum by (reason) (increase(oca_fill_orders_refused_total{{{_FILLED}}}[1h]))"},
                ),
                Graph(
                    "Compared with the catalogue",
                    Unit.PLAIN,
                    {"{{result}}": f"sum by (result) (increase(oca_fill_verified_total{{{_FILLED}}}[1h]))"},
                ),
            ],
        ),
        (
            "What plans are made of",
            [
                Graph("Kept for fill", Unit.RATIO, {"{{appliance}}": f"oca_pledged_ratio{{{_FILLED}}}"}, most=1),
                Graph(
                    "Demand not shipped",
                    Unit.PLAIN,
                    {"{{appliance}}": f"oca_demand_spooled_hours{{{_FILLED}}}"},
                    "Hours.",
                ),
                Graph(
                    "Last order done",
                    Unit.MOMENT,
                    {"{{appliance}}": Rare(f"1000 * (oca_fill_last_success_timestamp_seconds{{{_FILLED}}} > 0)")},
                ),
            ],
        ),
    ),
)

QUALITY: Final = Board(
    uid="oca-quality",
    title="Open Connect: viewer quality",
    words="What players say of themselves (CMCD), by site.",
    variables=(_SITE,),
    rows=rows(
        (
            "Viewers",
            [
                Graph(
                    "Watching",
                    Unit.PLAIN,
                    {"{{site}}": 'sum by (site) (oca_viewers{site=~"$site"})'},
                    "Sessions that asked for something within a minute.",
                    is_stacked=True,
                ),
                Graph(
                    "Sessions begun",
                    Unit.PER_SECOND,
                    {"{{site}}": _rate("oca_viewer_sessions_total", by="site")},
                    is_stacked=True,
                ),
                Graph(
                    "Stalls in an hour of watching",
                    Unit.PLAIN,
                    {"{{site}}": 'site:oca_viewer_stalls:per_hour{site=~"$site"}'},
                ),
            ],
        ),
        (
            "Picture",
            [
                Graph(
                    "Bitrate",
                    Unit.BITS_PER_SECOND,
                    {
                        "{{site}}": "8 * "
                        + _rate("oca_viewer_rated_bytes_total", by="site")
                        + " / "
                        + _rate("oca_viewer_rated_seconds_total", by="site")
                    },
                    "The mean of what is watched.",
                ),
                Graph(
                    "In the buffer",
                    Unit.SECONDS,
                    {
                        "a tenth have less than": _quantile(0.1, "oca_viewer_buffer_seconds"),
                        "median": _quantile(0.5, "oca_viewer_buffer_seconds"),
                    },
                ),
                Graph(
                    "First byte after 0.5 s",
                    Unit.RATIO,
                    {"{{site}}": 'site:oca_late_first_byte:ratio_rate5m{site=~"$site"}'},
                ),
            ],
        ),
        (
            "What appliances do for them",
            [
                Graph(
                    "Answers that were paced",
                    Unit.PER_SECOND,
                    {"{{site}}": _rate("oca_paced_answers_total", by="site")},
                ),
                Graph(
                    "Brought ahead",
                    Unit.PER_SECOND,
                    {"{{site}}": _rate("oca_prefetches_total", by="site")},
                    "Objects that players said they would ask for next.",
                ),
                Graph(
                    "Requests that say something",
                    Unit.RATIO,
                    {
                        "{{site}}": _rate("oca_cmcd_requests_total", by="site")
                        + " / "
                        + _rate("oca_requests_total", by="site")
                    },
                    most=1,
                ),
            ],
        ),
    ),
)

BOARDS: Final = (FLEET, SITE, APPLIANCE, STEERING, FILL, QUALITY)
