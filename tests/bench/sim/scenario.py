"""What happens on that day, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.bench.sim.engine import Happening, Outage
from tests.bench.sim.workload import DAY, Crowd
from tests.bench.sim.world import World

HOUR: Final = 3600


# Half of them are there within three minutes. Of the title one appliance at each site has a copy.
CROWD: Final = Crowd(at=2 * HOUR, lasts=900.0, countries=("US", "CA", "MX"), share=0.015, title=400)


@dataclass(frozen=True)
class Sample:
    """A moment, and countries whose players a linear program may send anywhere."""

    at: int
    countries: tuple[str, ...]
    since: int
    """Another program has them where they were best then, and lets those stay who are there."""


@dataclass(frozen=True)
class Scenario:
    """Seconds of UTC. Each in its country's evening."""

    start: int = 0
    end: int = DAY
    site_outage: tuple[int, int] = (19 * HOUR + 20 * 60, 20 * HOUR)
    site_country: str = "DE"
    isp_outage: tuple[int, int] = (22 * HOUR + 30 * 60, 23 * HOUR + 10 * 60)
    isp_country: str = "BR"
    crowd: Crowd | None = CROWD
    samples: tuple[tuple[str, Sample], ...] = (
        ("crowd", Sample(2 * HOUR + 15 * 60, ("US",), 2 * HOUR)),
        ("evening", Sample(19 * HOUR, ("DE", "FR", "GB", "NL", "BE"), 18 * HOUR + 40 * 60)),
        ("site outage", Sample(19 * HOUR + 40 * 60, ("DE", "FR", "GB", "NL", "BE"), 19 * HOUR + 20 * 60)),
        ("ISP outage", Sample(22 * HOUR + 50 * 60, ("BR",), 22 * HOUR + 30 * 60)),
    )

    def moments(self) -> dict[str, int]:
        """When to look who is where."""
        return {
            name: at
            for label, sample in self.samples
            for name, at in ((label, sample.at), (before(label), sample.since))
        }


def before(label: str) -> str:
    """Of a sample, the moment since when its players stay."""
    return f"before: {label}"


def outages(plan: Scenario, world: World) -> tuple[Outage, ...]:
    """The largest site inside an ISP of one country; all sites of the largest ISP of another. In a world that is too
    small for either there is none.
    """
    made = world.markets
    by_site = np.bincount(world.site_of, weights=world.capacity)
    country_of = np.where(world.site_isp >= 0, made.country[world.site_market], -1)
    there = set(country_of.tolist())
    numbers = {code: number for number, code in enumerate(made.codes) if number in there}
    found = []
    if (country := numbers.get(plan.site_country)) is not None:
        site = int(np.argmax(np.where(country_of == country, by_site, -1.0)))
        inside = np.nonzero(world.site_of == site)[0]
        found.append(Outage(f"site {world.site_names[site]}", *plan.site_outage, inside, country))
    if (country := numbers.get(plan.isp_country)) is not None:
        here = country_of == country
        by_isp = np.bincount(world.site_isp[here], weights=by_site[here])
        isp = int(np.argmax(by_isp))
        inside = np.nonzero(world.site_isp[world.site_of] == isp)[0]
        found.append(Outage(f"ISP {isp} of {plan.isp_country}", *plan.isp_outage, inside, country))
    return tuple(outage for outage in found if plan.start <= outage.at < plan.end)


def happenings(plan: Scenario, world: World) -> tuple[Happening, ...]:
    crowd = plan.crowd
    if crowd is None or not plan.start <= crowd.at < plan.end:
        return ()
    codes = world.markets.codes
    return (Happening(int(crowd.at), tuple(codes.index(code) for code in crowd.countries if code in codes)),)
