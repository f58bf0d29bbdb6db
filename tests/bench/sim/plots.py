"""The day as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import ScalarFormatter

from tests.bench.sim.engine import PROMISE, Outcome
from tests.bench.sim.scenario import Scenario

_COLOURS: Final = {"ours": "#0b6e4f", "nearest": "#d1495b", "hashed": "#8d6a9f"}
_CLASSES: Final = (
    ("in the ISP, by prefix", "#0b6e4f"), ("in the ISP, by network", "#6bbf8a"),
    ("exchange, by place", "#e9a03b"), ("exchange, place unknown", "#f3d29b"),
)  # fmt: skip
_WHY: Final = {
    "nearer": "#6bbf8a", "full": "#d1495b", "gain": "#e9a03b", "lost": "#30343f", "suspect": "#777777",
    "beyond": "#4477aa", "unlisted": "#ff00ff", "none": "#ff00ff",
}  # fmt: skip


def draw(outcomes: dict[str, Outcome], plan: Scenario, folder: Path) -> list[Path]:
    """Writes PNG files there, and names them."""
    made = [
        _busiest(outcomes, plan, folder / "utilisation.png"),
        _served(outcomes, plan, folder / "served.png"),
    ]
    if any(recovery.left for outcome in outcomes.values() for recovery in outcome.recoveries):
        made.append(_recovery(outcomes, folder / "recovery.png"))
    if "ours" in outcomes:
        made.append(_moves(outcomes["ours"], plan, folder / "moves.png"))
    return made


def _figure(rows: int) -> tuple:
    figure, axes = plt.subplots(rows, 1, figsize=(11, 3.4 * rows), sharex=True, constrained_layout=True)
    return figure, np.atleast_1d(axes)


def _hours(outcome: Outcome) -> np.ndarray:
    return np.array([minute["at"] for minute in outcome.minutes]) / 3600.0


def _series(outcome: Outcome, name: str) -> np.ndarray:
    return np.array([minute[name] for minute in outcome.minutes], float)


def _mark(axes, plan: Scenario) -> None:
    """When something happened."""
    spans = [(*plan.site_outage, "site away"), (*plan.isp_outage, "ISP away")]
    if plan.crowd is not None:
        spans.append((plan.crowd.at, plan.crowd.at + plan.crowd.lasts, "crowd"))
    axes.set_xlim(plan.start / 3600.0, plan.end / 3600.0)
    inside = axes.get_xaxis_transform()
    for begin, end, text in spans:
        if plan.start <= begin < plan.end:
            axes.axvspan(begin / 3600.0, end / 3600.0, color="#999999", alpha=0.25, lw=0)
            axes.text(begin / 3600.0, 0.97, f" {text}", fontsize=8, va="top", transform=inside)


def _busiest(outcomes: dict[str, Outcome], plan: Scenario, path: Path) -> Path:
    figure, (highest, over, unserved) = _figure(3)
    for name, outcome in outcomes.items():
        colour = _COLOURS[name]
        hours = _hours(outcome)
        highest.plot(hours, 100 * _series(outcome, "highest"), color=colour, lw=1.2, label=name)
        over.plot(hours, _series(outcome, "over"), color=colour, lw=1.2, label=name)
        unserved.plot(
            hours, 100 * (_series(outcome, "unserved") + _series(outcome, "origin")) / _series(outcome, "bps"),
            color=colour, lw=1.2, label=name,
        )  # fmt: skip
    highest.axhline(100 * PROMISE, color="black", lw=0.8, ls="--")
    highest.set_yscale("log")
    highest.yaxis.set_major_formatter(ScalarFormatter())
    highest.yaxis.set_minor_formatter(ScalarFormatter())
    highest.set_ylabel("busiest appliance, %")
    over.set_yscale("symlog", linthresh=1)
    over.set_ylim(bottom=0)
    over.set_ylabel(f"appliances above {PROMISE:.0%}")
    unserved.set_ylim(bottom=0)
    unserved.set_ylabel("not served by an appliance, %")
    unserved.set_xlabel("hour, UTC")
    highest.legend(loc="upper center", ncol=3)
    for axes in (highest, over, unserved):
        axes.grid(alpha=0.3)
        _mark(axes, plan)
    return _saved(figure, path)


def _served(outcomes: dict[str, Outcome], plan: Scenario, path: Path) -> Path:
    figure, all_axes = _figure(len(outcomes))
    for axes, (name, outcome) in zip(all_axes, outcomes.items(), strict=True):
        by_class = np.array([minute["by_class"] for minute in outcome.minutes]).T[:4] / 1e12
        lost = _series(outcome, "origin") / 1e12
        axes.stackplot(
            _hours(outcome), *by_class, lost,
            colors=[colour for _, colour in _CLASSES] + ["#d1495b"], labels=[text for text, _ in _CLASSES] + ["origin"],
        )  # fmt: skip
        axes.set_ylabel(f"{name}: Tb/s")
        axes.grid(alpha=0.3)
        _mark(axes, plan)
    all_axes[0].legend(loc="lower left", fontsize=8, ncol=5)
    all_axes[-1].set_xlabel("hour, UTC")
    return _saved(figure, path)


def _recovery(outcomes: dict[str, Outcome], path: Path) -> Path:
    count = max(len(outcome.recoveries) for outcome in outcomes.values())
    figure, all_axes = _figure(count)
    for number, axes in enumerate(all_axes):
        for name, outcome in outcomes.items():
            recovery = outcome.recoveries[number]
            left = 100 * np.array(recovery.left[:90])
            axes.plot(np.arange(1, len(left) + 1), left, color=_COLOURS[name], lw=1.4, label=name)
        axes.set_title(recovery.name, fontsize=9, loc="left")
        axes.set_ylabel("still asked of them, %")
        axes.grid(alpha=0.3)
    all_axes[0].legend()
    all_axes[-1].set_xlabel("seconds since they went silent")
    return _saved(figure, path)


def _moves(outcome: Outcome, plan: Scenario, path: Path) -> Path:
    figure, (axes,) = _figure(1)
    hours = _hours(outcome)
    reasons = sorted({why for minute in outcome.minutes for why in minute["moved"]})
    below = np.zeros(len(hours))
    for why in reasons:
        moved = np.array([minute["moved"].get(why, 0.0) for minute in outcome.minutes]) / _series(outcome, "viewers")
        axes.fill_between(
            hours, below, below + 1e6 * moved, color=_WHY.get(why, "#4477aa"), label=why, lw=0, step="mid"
        )
        below += 1e6 * moved
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("moved a minute, of a million viewers")
    axes.set_xlabel("hour, UTC")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", ncol=4)
    _mark(axes, plan)
    return _saved(figure, path)


def _saved(figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
