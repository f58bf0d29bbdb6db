"""Where a client is, with a million announced prefixes: time to build, memory, and CPU time of a look-up.

`python -m tests.bench.steering.topology [PREFIXES [CITY ASN]]` prints the rows. CITY and ASN are real databases; else
small ones are made whose records are as large as real ones. A process of its own: the memory is only this.
"""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import maxminddb

from steering.topology.acceptance import Gate, Rules
from steering.topology.databases import Database, Kind
from steering.topology.locator import Locator
from steering.topology.prefixes import Announced, Network, Source, text_of
from tests.bench.appliance import REPOSITORY
from tests.bench.machine import memory
from tests.bench.report import table
from tests.doubles.geoip import ASN, CITY, asn, city, write_database
from wire.prefixes import LearnedPrefix

PREFIXES: Final = 1_000_000
SITES: Final = 5_000
_V6_SHARE: Final = 0.2
"""As in the Internet's own table."""
_V4_LENGTHS: Final = (16, 18, 19, 20, 20, 21, 22, 22, 22, 23, 23, *(24,) * 12)
_V6_LENGTHS: Final = (32, 32, 36, 40, 44, *(48,) * 5)
_LANGUAGES: Final = ("de", "en", "es", "fr", "ja", "pt-BR", "ru", "zh-CN")
_ASKED: Final = 100_000
_ROUNDS: Final = 5

Row = tuple[str, str, str]
"""What, how much, and what it was to be."""


def rows(prefixes: int = PREFIXES, databases: Sequence[Path] = ()) -> list[Row]:
    """Measured in a process of its own. `databases`: city and ASN."""
    command = [sys.executable, "-m", __name__, str(prefixes), *map(str, databases), "--json"]
    done = subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE)
    return [tuple(row) for row in json.loads(done.stdout)]


def _measured(prefixes: int, databases: Sequence[Path], folder: Path) -> list[Row]:
    dice = random.Random(4)
    said = _said(prefixes, dice)
    asked = _clients(said, dice)
    found: list[Row] = []
    gc.collect()
    before = memory(os.getpid()).anonymous
    announced = Announced()
    seconds = _cpu(lambda: [announced.replace(source, networks) for source, networks in said.items()])
    found += [
        (f"announce {len(announced):,} prefixes of {SITES:,} sites", f"{seconds:.1f} s", "<= 10 s"),
        ("memory of them", f"{(memory(os.getpid()).anonymous - before) / 1e6:.0f} MB", "<= 2 GiB with all the rest"),
    ]
    found += _changes(announced, said, dice)
    asns, cities = _databases(databases, folder)
    locator = Locator(announced, asns, cities)
    found += [
        ("prefix and scope", _each(lambda: [announced.find(address) for address in asked]), ""),
        (
            f"AS and place ({cities.status.type}, {cities.status.nodes:,} nodes)",
            _each_database(asns, cities, asked),
            "",
        ),
        ("locate, nothing remembered", _each(lambda: _cold(announced, asns, cities, asked)), "<= 25 µs"),
    ]
    few = asked[: _ASKED // 5]
    for address in few:
        locator.locate(address)
    found.append(("locate, remembered", _each(lambda: [locator.locate(address) for address in few * 5]), "<= 3 µs"))
    found.append(("the same address by maxminddb's Python reader", _python_reader(cities, folder, asked), ""))
    return found


def _said(prefixes: int, dice: random.Random) -> dict[Source, list[Network]]:
    networks: set[Network] = set()
    while len(networks) < prefixes:
        if dice.random() < _V6_SHARE:
            length = dice.choice(_V6_LENGTHS)
            number = (0x2 << 124 | dice.getrandbits(124)) >> (128 - length) << (128 - length)
            networks.add((number.to_bytes(16), length))
        else:
            length = dice.choice(_V4_LENGTHS)
            number = dice.randrange(1 << 24, 224 << 24) >> (32 - length) << (32 - length)
            networks.add((number.to_bytes(4), length))
    said: dict[Source, list[Network]] = {Source(f"site-{site}"): [] for site in range(SITES)}
    sources = list(said)
    for network in sorted(networks):
        said[dice.choice(sources)].append(network)
        # Some are announced to two sites of an operator.
        if dice.random() < 0.1:
            said[dice.choice(sources)].append(network)
    return said


def _clients(said: dict[Source, list[Network]], dice: random.Random) -> list[bytes]:
    """Four of five from announced prefixes, the others from anywhere."""
    everything = [network for networks in said.values() for network in networks]
    clients = []
    for _ in range(_ASKED):
        packed, length = dice.choice(everything)
        width = 8 * len(packed)
        if dice.random() < 0.8:
            clients.append((int.from_bytes(packed) | dice.getrandbits(width - length)).to_bytes(len(packed)))
        else:
            clients.append((0x2 << 124 | dice.getrandbits(124)).to_bytes(16) if width > 32 else dice.randbytes(4))
    return clients


def _changes(announced: Announced, said: dict[Source, list[Network]], dice: random.Random) -> list[Row]:
    """An appliance reports 20,000 prefixes, then ten others of them."""
    everything = [network for networks in said.values() for network in networks]
    source = Source("site-0", "appliance")
    networks = dice.sample(everything, min(20_000, len(everything) // 2))
    routes = [LearnedPrefix(text_of(network), (64500, 64501)) for network in networks]
    gate = Gate(Rules(allowed=("0.0.0.0/0", "2000::/3")))
    judging = _cpu(lambda: gate.accept(routes))
    first = _cpu(lambda: announced.replace(source, networks))
    again = _cpu(lambda: announced.replace(source, networks[10:]))
    announced.replace(source, [])
    return [
        (f"judge {len(routes):,} reported routes", f"{judging * 1e3:.0f} ms", ""),
        ("take them up", f"{first * 1e3:.0f} ms", ""),
        ("take up that ten of them are gone", f"{again * 1e3:.0f} ms", ""),
    ]


def _databases(paths: Sequence[Path], folder: Path) -> tuple[Database, Database]:
    if not paths:
        named = {"names": dict.fromkeys(_LANGUAGES, "A name of usual length"), "geoname_id": 2921044}
        records = {}
        for number in range(4, 204):
            for second in range(0, 256, 16):
                record = city("DE", 50.0 + second / 100, 7.0 + number / 100, subdivision="NW")
                for part in ("country", "registered_country", "continent", "city"):
                    record[part] = {"iso_code": "DE", **named}
                record["subdivisions"] = [{"iso_code": "NW", **named}]
                records[f"{number}.{second}.0.0/12"] = record
        cities = write_database(folder / "city.mmdb", CITY, records | {"2a00::/12": city("NL", 52.4, 4.9)})
        asns = write_database(
            folder / "asn.mmdb", ASN, {f"{number}.0.0.0/8": asn(64000 + number) for number in range(4, 204)}
        )
        paths = (cities, asns)
    found = Database(Kind.ASN, str(paths[1])), Database(Kind.CITY, str(paths[0]))
    for database in found:
        database.refresh(time.time())
        assert database.status.loaded, database.status.problem
    return found


def _cold(announced: Announced, asns: Database, cities: Database, asked: list[bytes]) -> None:
    # So few are remembered that nothing is found again.
    locator = Locator(announced, asns, cities, most=2)
    for address in asked:
        locator.locate(address)


def _each_database(asns: Database, cities: Database, asked: list[bytes]) -> str:
    addresses = [IPv4Address(address) for address in asked if len(address) == 4]

    def look() -> None:
        for address in addresses:
            asns.find(address)
            cities.find(address)

    return _each(look, len(addresses))


def _python_reader(cities: Database, folder: Path, asked: list[bytes]) -> str:
    path = cities.status.path
    addresses = [IPv4Address(address) for address in asked if len(address) == 4][:2000]
    with maxminddb.open_database(path, maxminddb.MODE_MEMORY) as reader:
        return _each(lambda: [reader.get_with_prefix_len(address) for address in addresses], len(addresses))


def _each(work: Callable[[], object], count: int = _ASKED) -> str:
    return f"{statistics.median(_cpu(work) for _ in range(_ROUNDS)) / count * 1e6:.2f} µs"


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    with tempfile.TemporaryDirectory() as name:
        count = int(arguments[0]) if arguments else PREFIXES
        measured = _measured(count, [Path(path) for path in arguments[1:]], Path(name))
    print(json.dumps(measured) if "--json" in sys.argv else table(["what", "measured", "wanted"], measured))
