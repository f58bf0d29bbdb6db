"""What a plan goes by: constants of forecast and placement, with what they are for. `make bench-fill` chose them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from msgspec import Meta, Struct

from wire.toml import BitsPerSecond, Bytes

Positive = Annotated[float, Meta(gt=0)]
Part = Annotated[float, Meta(gt=0, le=1)]
Clock = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d\Z")]
"""A time of day, such as 02:00."""


class PeakHours(Struct, frozen=True, forbid_unknown_fields=True):
    """The hours of the site's own clock that fill works for: from `start` until `stop`."""

    start: Annotated[int, Meta(ge=0, le=23)] = 18
    stop: Annotated[int, Meta(ge=1, le=24)] = 24

    def __contains__(self, hour: object) -> bool:
        return isinstance(hour, int) and self.start <= hour < self.stop

    @property
    def seconds(self) -> float:
        return 3600.0 * (self.stop - self.start)


class Window(Struct, frozen=True, forbid_unknown_fields=True):
    """When and how fast appliances are filled, by their own clocks. Agents have settings of their own; plans are made
    so that they fit into this one.
    """

    start: Clock = "02:00"
    stop: Clock = "14:00"
    rate: BitsPerSecond = BitsPerSecond(1_200_000_000)
    """Of one appliance. Open Connect's storage appliances are filled at 1.2 Gbit/s at most."""
    device_rate: Bytes = Bytes(40_000_000)
    """Bytes a second that one device takes while viewers read from it."""

    @property
    def seconds(self) -> float:
        """As long as it is on a day on which no clock is changed; from a time to itself is a whole day."""
        start, stop = (dt.timedelta(hours=int(text[:2]), minutes=int(text[3:])) for text in (self.start, self.stop))
        return (stop - start).total_seconds() % 86400 or 86400.0

    def bytes_of(self, devices: int) -> int:
        """What an appliance with so many devices takes in a night."""
        return int(self.seconds * min(self.rate / 8, devices * self.device_rate))


class Smoothing(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the forecast. A *play* is a rendition's size in bytes served."""

    days: Annotated[int, Meta(ge=1, le=60)] = 28
    """That are looked back."""
    fast: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    """The weight of the last day, where much is known of a title."""
    slow: Annotated[float, Meta(gt=0, lt=1)] = 0.25
    """And where little is known."""
    trend_plays: Positive = 20.0
    """With so many plays a day the fast one counts half."""
    trend_most: Annotated[float, Meta(ge=1)] = 3.0
    """It is believed up to so many times the slow one."""
    title_shape: Positive = 0.5
    """How much a title is like the others before it was seen: in plays. Popularity is spread wide."""
    rung_shape: Positive = 8.0
    """How much a rendition is like others of its rung."""
    site_shape: Positive = 20.0
    """How much a site is like its region."""
    peak_plays: Positive = 50.0
    """After so many plays a title's own share of peak hours counts half."""
    launch_days: Annotated[int, Meta(ge=1, le=60)] = 21
    """After which a title is an old one."""
    launch_plays: Positive = 500.0
    """The launch curve is believed half when it was seen in so many plays."""
    launch_most: Annotated[float, Meta(ge=1)] = 20.0
    """The most that the first day is above later ones."""


class Placing(Struct, frozen=True, forbid_unknown_fields=True):
    churn: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """The most of an appliance's storage that is replaced in a night. Filling what is empty is no replacing."""
    hysteresis: Annotated[float, Meta(ge=0, le=10)] = 0.3
    """By how much denser a newcomer must be than what it takes the place of."""
    copy_share: Part = 0.05
    """A rendition gets another copy for each such part of an appliance's link that its viewers need at the peak."""
    pledge_days: Annotated[float, Meta(gt=0, le=60)] = 7.0
    """How long what was ordered stays where it is if no later order comes."""
    order_days: Annotated[float, Meta(gt=0, le=14)] = 3.0
    """How long an order is worked on if no later one comes."""
