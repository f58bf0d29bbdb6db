import asyncio
import ipaddress
import logging
import os
import sys
import time

import pytest

from steering.topology.databases import Database, Kind, ReaderMissing, State, watch
from tests.doubles.geoip import ASN, CITY, asn, city, write_database

ADDRESS = ipaddress.ip_address("45.1.2.3")
NOW = time.time()
"""The writer stamps databases with the time of day."""
YEAR = 365 * 86400


def _cities(path, country="DE", more=0, version=6):
    records = {"45.1.0.0/16": city(country, 50.94, 6.96)}
    records |= {f"46.{number}.0.0/16": city("FR", 48.85, 2.35) for number in range(more)}
    if version == 6:
        records["2a00:1000::/32"] = city("NL", 52.37, 4.9)
    return write_database(path, CITY, records, version)


def _loaded(path, kind=Kind.CITY):
    database = Database(kind, str(path))
    assert database.refresh(NOW)
    return database


def _country(database, address=ADDRESS):
    record, _ = database.find(address)
    return record and record["country"]["iso_code"]


def test_a_database_is_loaded_and_says_what_it_is(tmp_path):
    database = _loaded(_cities(tmp_path / "city.mmdb"))
    status = database.status
    assert (status.state, status.problem, status.loaded, status.type) == (State.GOOD, "", True, CITY)
    assert abs(status.built_at - NOW) < YEAR
    assert status.nodes > 0
    assert database.find(ADDRESS) == (city("DE", 50.94, 6.96), 16)
    assert _country(database, ipaddress.ip_address("2a00:1000::1")) == "NL"
    assert database.generation == 1


def test_what_is_not_in_it_has_a_scope_too(tmp_path):
    database = _loaded(_cities(tmp_path / "city.mmdb"))
    assert database.find(ipaddress.ip_address("45.0.0.1")) == (None, 16)
    assert database.find(ipaddress.ip_address("2a00:1001::1")) == (None, 32)


def test_without_a_file_nothing_is_known_and_nothing_is_wrong():
    database = Database(Kind.ASN, None)
    assert not database.refresh(NOW)
    assert database.status.state is State.OFF
    assert database.find(ADDRESS) == (None, 0)


def test_an_ipv4_database_knows_no_ipv6_address(tmp_path):
    database = _loaded(_cities(tmp_path / "city.mmdb", version=4))
    assert _country(database) == "DE"
    assert database.find(ipaddress.ip_address("2a00:1000::1")) == (None, 0)


def test_a_file_that_did_not_change_is_not_read_again(tmp_path):
    database = _loaded(_cities(tmp_path / "city.mmdb"))
    assert not database.refresh(NOW)
    assert database.generation == 1


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = _cities(tmp_path / "city.mmdb", "DE")
    database = _loaded(path)
    _cities(path, "AT")
    assert database.refresh(NOW)
    assert _country(database) == "AT"
    assert database.generation == 2


def test_a_file_that_is_overwritten_in_place_hurts_nobody(tmp_path):
    path = _cities(tmp_path / "city.mmdb", "DE")
    database = _loaded(path)
    # As `cp` does. Pages of a mapped file that is truncated are gone, and touching one ends the process.
    os.truncate(path, 0)
    assert _country(database) == "DE"
    assert database.refresh(NOW)
    assert database.status.state is State.BROKEN
    path.write_bytes(_cities(tmp_path / "other.mmdb", "AT").read_bytes())
    assert database.refresh(NOW)
    assert database.status.state is State.GOOD
    assert _country(database) == "AT"


def test_a_file_that_goes_missing_is_reported_and_what_was_loaded_stays(tmp_path):
    path = _cities(tmp_path / "city.mmdb")
    database = _loaded(path)
    path.unlink()
    assert database.refresh(NOW)
    assert (database.status.state, database.status.loaded) == (State.MISSING, True)
    assert str(path) in database.status.problem
    assert _country(database) == "DE"
    assert not database.refresh(NOW)
    _cities(path, "AT")
    assert database.refresh(NOW)
    assert database.status.state is State.GOOD
    assert _country(database) == "AT"


def test_a_file_that_was_never_there_leaves_steering_without_it(tmp_path):
    database = Database(Kind.CITY, str(tmp_path / "none.mmdb"))
    database.refresh(NOW)
    assert (database.status.state, database.status.loaded) == (State.MISSING, False)
    assert database.find(ADDRESS) == (None, 0)


def test_a_path_that_can_not_be_read_is_reported(tmp_path):
    database = _loaded(tmp_path)
    assert database.status.state is State.UNREADABLE
    assert "directory" in database.status.problem


def _half(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _headless(path):
    path.write_bytes(path.read_bytes()[200:])


def _zeroes_in_the_middle(path):
    # The tree is there, but what it points to is not.
    whole = path.read_bytes()
    end = whole.rindex(b"\xab\xcd\xefMaxMind.com")
    path.write_bytes(whole[: end // 2] + bytes(end - end // 2) + whole[end:])


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda path: path.write_bytes(b""), State.BROKEN),
        (lambda path: path.write_bytes(b"<html>429 Too Many Requests</html>"), State.BROKEN),
        (_half, State.BROKEN),
        (_headless, State.BROKEN),
        (_zeroes_in_the_middle, State.BROKEN),
        (lambda path: write_database(path, ASN, {"45.1.0.0/16": asn(64500)}), State.WRONG_TYPE),
        (lambda path: write_database(path, "GeoLite2-Country", {"45.1.0.0/16": city("DE", 1, 2)}), State.WRONG_TYPE),
        (lambda path: write_database(path, CITY, {}), State.IMPLAUSIBLE),
        (lambda path: write_database(path, CITY, {"45.1.0.0/16": {"city": "Cologne"}}), State.IMPLAUSIBLE),
    ],
    ids=["empty", "error page", "half", "headless", "hole", "other kind", "country only", "no record", "useless"],
)
def test_a_broken_file_is_reported_and_what_was_loaded_stays(tmp_path, damage, state):
    path = _cities(tmp_path / "city.mmdb")
    database = _loaded(path)
    damage(path)
    assert database.refresh(NOW)
    status = database.status
    assert (status.state, status.loaded, status.type) == (state, True, CITY)
    assert status.problem
    assert _country(database) == "DE"
    # It is told once, and not read again until it changes.
    assert not database.refresh(NOW)
    alone = Database(Kind.CITY, str(path))
    alone.refresh(NOW)
    assert (alone.status.state, alone.status.loaded) == (state, False)
    assert alone.find(ADDRESS) == (None, 0)


def test_a_file_from_the_future_is_not_believed(tmp_path):
    database = Database(Kind.CITY, str(_cities(tmp_path / "city.mmdb")))
    database.refresh(NOW - YEAR)
    assert database.status.state is State.IMPLAUSIBLE
    assert not database.status.loaded


def test_a_file_that_lost_most_of_its_networks_is_taken_only_by_a_restart(tmp_path):
    path = _cities(tmp_path / "city.mmdb", more=200)
    database = _loaded(path)
    _cities(path, "AT")
    assert database.refresh(NOW)
    assert database.status.state is State.IMPLAUSIBLE
    assert _country(database) == "DE"
    assert _country(_loaded(path)) == "AT"


def test_an_asn_database_is_one_too(tmp_path):
    path = write_database(tmp_path / "asn.mmdb", ASN, {"45.1.0.0/16": asn(64500)})
    database = _loaded(path, Kind.ASN)
    assert database.find(ADDRESS) == (asn(64500), 16)


def test_without_the_c_reader_the_start_fails_and_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "maxminddb.extension", None)
    with pytest.raises(ReaderMissing, match="libmaxminddb"):
        Database(Kind.CITY, None)


class Lines(logging.Handler):
    """What is logged, to be waited for."""

    def __init__(self):
        super().__init__()
        self.lines = asyncio.Queue()

    def emit(self, record):
        self.lines.put_nowait(record.getMessage())


async def test_the_watch_takes_up_what_appears_and_says_so(tmp_path):
    said = Lines()
    logger = logging.getLogger("steering.topology.databases")
    logger.addHandler(said)
    logger.setLevel(logging.INFO)
    path = tmp_path / "city.mmdb"
    database = Database(Kind.CITY, str(path))
    try:
        async with asyncio.timeout(60):
            watching = asyncio.create_task(watch([database], time.time, every=0.001))
            assert "steering goes on without it" in await said.lines.get()
            _cities(path)
            assert "is in use" in await said.lines.get()
            path.unlink()
            assert "the one loaded before stays in use" in await said.lines.get()
            watching.cancel()
    finally:
        logger.removeHandler(said)
        logger.setLevel(logging.NOTSET)
    assert _country(database) == "DE"
