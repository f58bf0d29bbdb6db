"""What steering believes of an appliance, and what changes its mind. The table is the program.

Down fast, up slowly: one bad word of its own, or a silence, takes an appliance out of new decisions at once; back it
comes through JOINING, when so many heartbeats in a row were well, and then with a share that grows (`ramp`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Standing(StrEnum):
    JOINING = "joining"
    """Heard, not yet trusted: it gets no players."""
    SERVING = "serving"
    SUSPECT = "suspect"
    """Unwell by its own word, or late: no new players; those that are there stay."""
    LOST = "lost"
    """Silent: players are moved away."""
    DRAINING = "draining"
    """It shall end its work: no new players, and those that are there are moved."""
    DRAINED = "drained"
    """And nobody is left. It may be switched off, which is then no alarm."""
    DISABLED = "disabled"
    """By order: nobody is sent there whatever it says."""


class Signal(StrEnum):
    """What is known at one moment, the weightiest only."""

    WELL = "well"
    """A heartbeat says that players may come."""
    STEADY = "steady"
    """The same, for so many times in a row."""
    UNWELL = "unwell"
    """A heartbeat says that they may not, or that too little of its cache is well."""
    LEAVING = "leaving"
    """It drains, by our order or its own; somebody is still connected."""
    EMPTY = "empty"
    """It drains, and nobody is."""
    QUIET = "quiet"
    """A heartbeat is overdue."""
    SILENT = "silent"
    """So long that it must be believed gone."""
    BANNED = "banned"
    """The operator wants it disabled."""
    MISSED = "missed"
    """Silent, and the order to rest is over: it should be back."""


_S = Standing
_WELL, _STEADY, _UNWELL, _LEAVING, _EMPTY, _QUIET, _SILENT, _BANNED, _MISSED = Signal

TRANSITIONS: Final[dict[Standing, dict[Signal, Standing]]] = {
    _S.JOINING: {
        _WELL: _S.JOINING, _STEADY: _S.SERVING, _UNWELL: _S.JOINING, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.JOINING, _SILENT: _S.LOST, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
    _S.SERVING: {
        _WELL: _S.SERVING, _STEADY: _S.SERVING, _UNWELL: _S.SUSPECT, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.SUSPECT, _SILENT: _S.LOST, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
    # One lucky packet is not health: suspicion ends by joining anew.
    _S.SUSPECT: {
        _WELL: _S.JOINING, _STEADY: _S.JOINING, _UNWELL: _S.SUSPECT, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.SUSPECT, _SILENT: _S.LOST, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
    _S.LOST: {
        _WELL: _S.JOINING, _STEADY: _S.JOINING, _UNWELL: _S.SUSPECT, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.LOST, _SILENT: _S.LOST, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
    _S.DRAINING: {
        _WELL: _S.JOINING, _STEADY: _S.JOINING, _UNWELL: _S.SUSPECT, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.DRAINING, _SILENT: _S.LOST, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
    # Drained and then silent is what was wanted: somebody switched it off.
    _S.DRAINED: {
        _WELL: _S.JOINING, _STEADY: _S.JOINING, _UNWELL: _S.SUSPECT, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.DRAINED, _SILENT: _S.DRAINED, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
    # Any other word than BANNED means that the ban is lifted.
    _S.DISABLED: {
        _WELL: _S.JOINING, _STEADY: _S.JOINING, _UNWELL: _S.SUSPECT, _LEAVING: _S.DRAINING,
        _EMPTY: _S.DRAINED, _QUIET: _S.JOINING, _SILENT: _S.LOST, _BANNED: _S.DISABLED,
        _MISSED: _S.LOST,
    },
}  # fmt: skip

TAKES_NEW: Final = frozenset({Standing.SERVING})
KEEPS_OLD: Final = frozenset({Standing.SERVING, Standing.SUSPECT, Standing.JOINING})
"""Players that are already there stay: JOINING follows suspicion, and a switch costs more than the doubt."""


class Patience(Struct, frozen=True, forbid_unknown_fields=True):
    """How long is waited before something is believed. Seconds, and counts of heartbeats."""

    interval: float = 5.0
    """Between two heartbeats, as appliances are told."""
    quiet_after: float = 8.0
    """One heartbeat of every 5 s is missing."""
    silent_after: float = 13.0
    """Two are. With a look each second, who is lost is known after 14 s."""
    rise: int = 3
    """Heartbeats in a row, none of them late, that must be well before an appliance serves."""
    least_health: float = 0.25
    """With less of its cache well, an appliance counts as unwell whatever it says."""
    ramp: float = 60.0
    """Until a new or returned appliance gets its full share: its memory is cold."""
    ramp_from: float = 0.1
    panic_share: float = 0.3
    """If more of the fleet than this falls silent at once, it is more likely us than them."""
    panic_least: int = 3
    """And they are so many at least, of two sites at least: one power cut is not our network."""
    panic_longest: float = 900.0
    """After that the silence is believed."""


def after(standing: Standing, signal: Signal) -> Standing:
    return TRANSITIONS[standing][signal]


def ramp(serving_for: float, patience: Patience) -> float:
    """The share of its weight that an appliance gets, so long after it began to serve: `ramp_from` to 1."""
    if serving_for >= patience.ramp or not patience.ramp:
        return 1.0
    return patience.ramp_from + (1.0 - patience.ramp_from) * max(0.0, serving_for) / patience.ramp


def is_panic(quiet: int, sites: int, counted: int, patience: Patience) -> bool:
    """Whether so many of `counted` appliances are silent, at so many sites, that our own network must be suspected."""
    return quiet >= patience.panic_least and sites >= 2 and quiet > patience.panic_share * counted
