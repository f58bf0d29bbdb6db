"""Gauges of the machine: what its network cards send and could send, and how busy its cores are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from oca.report.rates import Cpu, Egress
from oca.settings import Steering

log = logging.getLogger(__name__)

_DEADLINE: Final = 1.0
"""Heartbeats wait for no longer: they must go on, whatever a driver does."""
CARDS: Final = Path("/sys/class/net")
_LOOPBACK: Final = "lo"
# From the blocks for documentation (RFC 5737, RFC 3849): no announced route covers them, so only a default route does.
_FAR_AWAY: Final = ("192.0.2.1", "2001:db8::1")


class Gauge(Struct, frozen=True):
    egress_bps: int = 0
    link_bps: int = 0
    """0 if the cards don't say."""
    cpu: float = 0.0


class Gauges:
    """Read now and then; rates are of the time since the last reading."""

    def __init__(self, steering: Steering) -> None:
        self._interfaces = steering.interfaces
        self._link_speed = steering.link_speed
        self._egress = Egress()
        self._cpu = Cpu()
        self._trouble = ""
        self._reading: asyncio.Future[tuple[dict[str, int], int, str]] | None = None

    async def read(self, deadline: float = _DEADLINE) -> Gauge:
        """What can't be read is as it was, and the log says so once."""
        loop = asyncio.get_running_loop()
        if self._reading is None:
            self._reading = loop.run_in_executor(None, self._look)
        try:
            async with asyncio.timeout(deadline):
                sent, speed, line = await asyncio.shield(self._reading)
        except TimeoutError:
            self._complain(f"no answer for {deadline:.0f} s")
            return Gauge(self._egress.bps, int(self._link_speed or 0), self._cpu.share)
        except (OSError, ValueError) as error:
            self._reading = None
            self._complain(str(error))
            return Gauge(self._egress.bps, int(self._link_speed or 0), self._cpu.share)
        self._reading = None
        missing = [name for name in self._interfaces if name not in sent]
        self._complain(f"there is no network card {', '.join(missing)}" if missing else "")
        link = speed if self._link_speed is None else int(self._link_speed)
        return Gauge(self._egress.counted(sent, loop.time()), link, self._cpu.counted(line))

    def _complain(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the load of the machine can't be told: %s", trouble)
        self._trouble = trouble

    def _look(self) -> tuple[dict[str, int], int, str]:
        """In a thread: bytes sent by card, their speed together, and the first line of /proc/stat."""
        sent = _sent_bytes(self._interfaces)
        with open("/proc/stat", encoding="ascii") as file:
            line = file.readline()
        return sent, sum(map(_speed_of, sent)), line


def _sent_bytes(wanted: tuple[str, ...]) -> dict[str, int]:
    """Bytes that each card sent since it came up. Raises OSError."""
    # A third of a second of CPU to import, and only for boxes that report. Not AsyncIPRoute: uvloop has no netlink.
    from pyroute2 import IPRoute  # noqa: PLC0415

    try:
        with IPRoute() as netlink:
            links = {str(link.get("ifname")): link for link in netlink.get_links()}
            chosen = _chosen(netlink, {int(link["index"]): name for name, link in links.items()}, wanted)
            return {name: int(links[name].get("stats64")["tx_bytes"]) for name in sorted(chosen) if name in links}
    except Exception as error:
        raise OSError(f"netlink: {error!r}") from error


def film_cards(wanted: tuple[str, ...], host: str) -> dict[str, tuple[str, ...]]:
    """Network cards that carry film addresses, and their addresses: the one that has `host`, or where that is any
    address, `wanted` or else those towards players. Raises OSError.
    """
    from pyroute2 import IPRoute  # noqa: PLC0415 as above

    try:
        with IPRoute() as netlink:
            names = {int(link["index"]): str(link.get("ifname")) for link in netlink.get_links()}
            addresses: dict[str, list[str]] = {}
            for entry in netlink.get_addr():
                addresses.setdefault(names.get(int(entry["index"]), ""), []).append(str(entry.get("address")))
            having = {name for name, own in addresses.items() if host in own}
            chosen = having or _chosen(netlink, names, wanted)
            return {name: tuple(addresses.get(name, ())) for name in sorted(chosen) if name in names.values()}
    except Exception as error:
        raise OSError(f"netlink: {error!r}") from error


def _chosen(netlink: Any, names: Mapping[int, str], wanted: tuple[str, ...]) -> set[str]:  # noqa: ANN401 pyroute2's
    """Cards towards players. `names` are those of all, by index."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 as above

    chosen = set(wanted)
    if not chosen:
        for address in _FAR_AWAY:
            try:
                routes = list(netlink.route("get", dst=address))
            except NetlinkError:
                continue  # There is none.
            chosen |= {names[route.get("oif")] for route in routes if route.get("oif") in names}
        chosen.discard(_LOOPBACK)
    return chosen or {name for name in names.values() if (CARDS / name / "device").exists()}


def _speed_of(name: str) -> int:
    """Bits a second; 0 if the card does not say, as virtual ones and those without a cable don't."""
    try:
        megabits = int((CARDS / name / "speed").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    return max(0, megabits) * 1_000_000
