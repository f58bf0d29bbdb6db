"""What a plan will do, for people: as text, as JSON, and as pictures."""

from __future__ import annotations

import io
from enum import StrEnum

from msgspec import Struct

from fill.placement import Reason
from fill.sizes import size_text


class Source(StrEnum):
    """Over which link bytes come in the first place; what is not there in time is fetched from outside."""

    OUTSIDE = "outside"
    """The appliance's own ladder: parents, then origin."""
    REGION = "region"
    """Another site behind the same parent."""
    SITE = "site"


class Missed(Struct, frozen=True, kw_only=True):
    """A rendition that would be asked for, and is in no order of the site."""

    folder: str
    size_bytes: int
    peak_bytes: int
    reason: Reason
    is_pin: bool = False


class SiteReport(Struct, frozen=True, kw_only=True):
    id: str
    region: str
    appliances: int
    predicted_day_bytes: int
    predicted_peak_bytes: int
    pledged_before: float
    """The share of the predicted peak bytes that what was pledged before tonight would have served."""
    pledged_after: float
    """The share that it serves by morning. What is kept on demand comes on top."""
    storage_bytes: int
    room_bytes: int
    """That may be pledged."""
    missed: tuple[Missed, ...] = ()


class ApplianceReport(Struct, frozen=True, kw_only=True):
    id: str
    site: str
    bring_renditions: int
    bring_bytes: int
    """That are not held: what the night moves."""
    budget_bytes: int
    keep_renditions: int
    release_renditions: int
    release_bytes: int
    room_bytes: int
    pledged_bytes: int
    churn: float
    """`bring_bytes` as a share of the storage."""
    by_source: dict[Source, int]
    refused: dict[str, int]
    """Bytes that were wanted here, by why they don't come tonight."""


class Report(Struct, frozen=True, kw_only=True):
    night: str
    catalogue: str
    renditions: int
    demand_bytes: int
    unknown_folder_bytes: int
    unknown_appliance_bytes: int
    sites: tuple[SiteReport, ...]
    appliances: tuple[ApplianceReport, ...]
    warnings: tuple[str, ...] = ()

    @property
    def predicted_peak_bytes(self) -> int:
        return sum(site.predicted_peak_bytes for site in self.sites)


def as_text(report: Report) -> str:
    """For a terminal of 120 columns."""
    whole = report.predicted_peak_bytes
    before = sum(site.pledged_before * site.predicted_peak_bytes for site in report.sites)
    after = sum(site.pledged_after * site.predicted_peak_bytes for site in report.sites)
    bring = sum(one.bring_bytes for one in report.appliances)
    lines = [
        (
            f"Night of {report.night}: {len(report.appliances):,} appliances at {len(report.sites):,} sites,"
            f" {report.renditions:,} renditions, catalogue {report.catalogue}"
        ),
        (
            f"Tomorrow's peak hours: {size_text(whole)} predicted; what is pledged serves {_percent(before, whole)}"
            f" of it before this night and {_percent(after, whole)} after it"
        ),
        f"To move: {size_text(bring)} in {sum(one.bring_renditions for one in report.appliances):,} renditions: "
        + ", ".join(
            f"{size_text(sum(one.by_source[kind] for one in report.appliances))} from {kind}" for kind in Source
        ),
        "",
        *(f"! {warning}" for warning in report.warnings),
        *([""] if report.warnings else []),
        (
            f"{'site':<24}{'appl.':>6}{'peak':>11}{'before':>9}{'after':>9}{'outside':>11}{'region':>11}{'site':>11}"
            f"{'churn':>8}"
        ),
    ]
    by_site: dict[str, list[ApplianceReport]] = {}
    for one in report.appliances:
        by_site.setdefault(one.site, []).append(one)
    for site in report.sites:
        own = by_site.get(site.id, [])
        moved = sum(one.bring_bytes for one in own)
        links = "".join(f"{size_text(sum(one.by_source[kind] for one in own)):>11}" for kind in Source)
        lines.append(
            f"{site.id[:23]:<24}{site.appliances:>6}{size_text(site.predicted_peak_bytes):>11}{site.pledged_before:>9.1%}"
            f"{site.pledged_after:>9.1%}{links}{_percent(moved, site.storage_bytes):>8}"
        )
    lines += [
        "",
        (
            f"{'appliance':<24}{'bring':>7}{'bytes':>11}{'of':>11}{'keep':>8}{'release':>9}{'pledged':>11}{'room':>11}"
            "  not tonight"
        ),
    ]
    for one in report.appliances:
        refused = ", ".join(f"{size_text(count)} {reason}" for reason, count in sorted(one.refused.items()))
        lines.append(
            f"{one.id[:23]:<24}{one.bring_renditions:>7,}{size_text(one.bring_bytes):>11}{size_text(one.budget_bytes):>11}"
            f"{one.keep_renditions:>8,}{one.release_renditions:>9,}{size_text(one.pledged_bytes):>11}"
            f"{size_text(one.room_bytes):>11}  {refused}"
        )
    missed = [(site.id, one) for site in report.sites for one in site.missed[:5]]
    if missed:
        lines += ["", "Most wanted of what is not held by pledge:"]
        lines += [
            f"  {site[:23]:<24}{size_text(one.peak_bytes):>10} of peak, {size_text(one.size_bytes):>9}  {one.folder}"
            f"  ({'pin, ' if one.is_pin else ''}{one.reason})"
            for site, one in missed[:100]
        ]
    return "\n".join(lines) + "\n"


def _percent(some: float, whole: float) -> str:
    return f"{some / whole:.1%}" if whole else "-"


def plots(report: Report) -> dict[str, bytes]:
    """PNG pictures by file name. The same report gives the same bytes."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, for this alone

    sites = sorted(report.sites, key=lambda site: -site.predicted_peak_bytes)[:40]
    by_site: dict[str, list[ApplianceReport]] = {}
    for one in report.appliances:
        by_site.setdefault(one.site, []).append(one)
    names = [site.id for site in sites]

    served = Figure(figsize=(10, 2 + 0.22 * len(sites)), layout="constrained")
    axes = served.subplots()
    axes.barh(names, [site.pledged_after * 100 for site in sites], color="#2b7bba", label="after this night")
    axes.barh(names, [site.pledged_before * 100 for site in sites], color="#a6c8e4", height=0.4, label="before")
    axes.set_xlabel("predicted peak bytes that pledged content serves (%)")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    axes.set_title(f"Night of {report.night}: what pledged content serves, by site")

    moved = Figure(figsize=(10, 2 + 0.22 * len(sites)), layout="constrained")
    axes = moved.subplots()
    left = [0.0] * len(sites)
    for kind, colour in zip(Source, ("#b3402a", "#e0a33e", "#5d9e5f"), strict=True):
        widths = [sum(one.by_source[kind] for one in by_site.get(name, [])) / 1e9 for name in names]
        axes.barh(names, widths, left=left, color=colour, label=f"from {kind}")
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axes.set_xlabel("GB to move")
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    axes.set_title(f"Night of {report.night}: what is moved, by link")
    return {"served.png": _png(served), "moved.png": _png(moved)}


def _png(figure: object) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})  # type: ignore[attr-defined]
    return buffer.getvalue()
