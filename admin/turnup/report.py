"""What turn-up checks found, as a table for eyes, Markdown for the ISP, and JSON for programs. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from admin.turnup.checks import Finding, Outcome, failed
from admin.turnup.seen import Check

_MARKS: Final = {
    Outcome.PASSED: "passed",
    Outcome.WARNED: "**warned**",
    Outcome.SKIPPED: "skipped",
    Outcome.FAILED: "**FAILED**",
}


class Report(Struct, frozen=True, kw_only=True):
    """Of one box."""

    appliance: str
    site: str
    at: float
    """Seconds since 1970 when its checks ended."""
    version: str
    """Of its software; empty: it was not asked."""
    by: str
    findings: tuple[Finding, ...]
    is_whole: bool
    """All checks were made."""

    @property
    def failed(self) -> tuple[str, ...]:
        return failed(self.findings)

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def verdict(self) -> str:
        """In a line."""
        if self.failed:
            return f"{self.appliance}: failed: {', '.join(self.failed)}"
        warned = dict.fromkeys(one.check.value for one in self.findings if one.outcome is Outcome.WARNED)
        words = f"{self.appliance}: passed" + ("" if self.is_whole else " what was checked")
        return words + (f", with a warning of {', '.join(warned)}" if warned else "")


def rows(report: Report) -> list[tuple[str, str, str]]:
    """Check, outcome and sentence; the name of a check stands once."""
    shown = []
    before: Check | None = None
    for one in report.findings:
        shown.append(("" if one.check is before else one.check.value, one.outcome.value, one.sentence))
        before = one.check
    return shown


def markdown(reports: Sequence[Report], unanswered: dict[str, str]) -> str:
    """For the ISP: a section for each box, and who gave no answer."""
    text = ["# Turn-up report\n"]
    for report in reports:
        moment = datetime.fromtimestamp(report.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        text.append(f"\n## {_plain(report.appliance)}\n\n")
        text.append(f"**{_plain(report.verdict)}.** ")
        text.append("" if report.is_whole else "Not all checks were made. ")
        text.append(f"Site {_plain(report.site)}, software {_plain(report.version or 'not asked')}, {moment}")
        text.append(f", checked by {_plain(report.by)}.\n\n| check | outcome | what was seen, and what is allowed |\n")
        text.append("|---|---|---|\n")
        text += [f"| {one.check.value} | {_MARKS[one.outcome]} | {_plain(one.sentence)} |\n" for one in report.findings]
    if unanswered:
        text.append("\n## Not checked\n\n")
        text += [f"- {_plain(name)}: {_plain(words)}\n" for name, words in sorted(unanswered.items())]
    return "".join(text)


def told(reports: Sequence[Report], unanswered: dict[str, str], recorded: Sequence[str]) -> dict[str, Any]:
    """For programs."""
    return {
        "reports": [
            {
                **msgspec.to_builtins(report),
                "passed": report.passed,
                "failed": list(report.failed),
                "recorded": report.appliance in recorded,
            }
            for report in reports
        ],
        "unanswered": unanswered,
    }


def _plain(text: str) -> str:
    """One line, in which nothing is markup: what a box says of itself is a stranger's word."""
    for letter in "\\`*_[]<>|#":
        text = text.replace(letter, f"\\{letter}")
    return " ".join(text.split())
