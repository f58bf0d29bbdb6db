"""`oca store verify` and `oca index rebuild`: they read the devices themselves and ask no appliance.

What they need is imported when it is needed: `oca serve` must not wait for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from oca.commands.devices import named
from oca.commands.terminal import Progress, say, show, size
from oca.settings import Settings

if TYPE_CHECKING:
    from oca.store import rebuild as rebuilding
    from oca.store import verify as verifying


def verify_store(settings: Settings, device: str | None, *, quick: bool, as_json: bool) -> int:
    """0 if everything is right, 1 if something was found."""
    from oca.store.verify import verify  # noqa: PLC0415 - see above

    progress = Progress(sys.stderr)
    try:
        report = verify(settings, device and named(device), quick=quick, progress=progress.tell)
    finally:
        progress.end()
    show(msgspec.json.encode(report).decode() if as_json else verified(report))
    return 0 if report.is_good else 1


def rebuild_index(settings: Settings, *, as_json: bool) -> int:
    from oca.store.rebuild import rebuild  # noqa: PLC0415 - see above

    progress = Progress(sys.stderr)
    try:
        report = rebuild(settings, progress.tell)
    finally:
        progress.end()
    show(msgspec.json.encode(report).decode() if as_json else rebuilt(report))
    for trouble in report.unread:
        say(f"oca: {trouble}: what lies there is taken over when it is back")
    return 0


def verified(report: verifying.Report) -> str:
    """A line for each finding, and one that sums up."""
    lines = [
        f"{finding.flaw}: {finding.sentence}" + (f" ({finding.path}, extent {finding.extent})" if finding.path else "")
        for finding in report.findings
    ]
    more = report.flaws.total() - len(report.findings)
    if more:
        lines.append(f"... and {more} more")
    looked = f"{report.extents} extents looked at, {report.blocks} blocks ({size(report.bytes)}) compared"
    if report.unlabelled:
        looked += f", {report.unlabelled} extents without a label, which `oca index rebuild` would not find"
    found = ", ".join(f"{count} {flaw}" for flaw, count in sorted(report.flaws.items()))
    return "\n".join([*lines, f"{looked}: {found}" if found else f"{looked}: all as it should be"])


def rebuilt(report: rebuilding.Report) -> str:
    told = (
        f"{report.extents} extents ({size(report.bytes)}) of {report.objects} objects on {report.devices} devices "
        f"are in the index; {report.passed_over} passed over, because another copy or generation counts"
    )
    flaws = ", ".join(f"{count} {flaw}" for flaw, count in sorted(report.flaws.items()))
    return f"{told}; not believed: {flaws}" if flaws else told
