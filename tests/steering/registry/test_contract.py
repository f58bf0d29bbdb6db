"""What every registry promises, whatever keeps it."""

import asyncio
import sqlite3

import pytest

from steering.errors import InventoryError, RegistryError
from steering.inventory import (
    Appliance,
    Operator,
    PutAppliance,
    PutOperator,
    PutSite,
    RemoveAppliance,
    SetWish,
    Site,
    Source,
    Wish,
)
from steering.registry.embedded import EmbeddedRegistry

OPERATOR = PutOperator(Operator(id="isp", asns=(64500,)))
SITE = PutSite(Site(id="lis", operator="isp", latitude=38.7, longitude=-9.1, country="PT", prefixes=("10.0.0.0/8",)))
BOX = PutAppliance(Appliance(id="a1", site="lis", url="https://a1.example"))

ASTRAY = PutAppliance(Appliance(id="x", site="nowhere", url="https://x.example"))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state" / "registry.sqlite")


def opened(path, at=1000.0):
    return EmbeddedRegistry(path, lambda: at)


async def test_what_was_kept_is_there_after_a_restart(path):
    async with opened(path) as registry:
        kept = await registry.change(OPERATOR, SITE, BOX, who="ana", why="new")
        assert registry.inventory is kept
    async with opened(path) as registry:
        assert registry.inventory == kept


async def test_a_change_that_can_not_be_leaves_nothing_behind(path):
    async with opened(path) as registry:
        before = await registry.change(OPERATOR, who="ana", why="new")
        with pytest.raises(InventoryError, match="nowhere"):
            await registry.change(
                SITE, PutAppliance(Appliance(id="x", site="nowhere", url="https://x")), who="a", why="b"
            )
        assert registry.inventory is before
        assert len(await registry.history(10)) == 1
    async with opened(path) as registry:
        assert registry.inventory == before


async def test_every_change_is_kept_with_who_when_and_why_the_newest_first(path):
    async with opened(path, at=77.0) as registry:
        await registry.change(OPERATOR, SITE, BOX, who="file", why="start", source=Source.FILE)
        await registry.change(SetWish("a1", Wish.DRAIN), who="ana", why="disk swap")
        newest, *_ = rows = await registry.history(10)
        assert [row.id for row in rows] == ["a1", "a1", "lis", "isp"]
        assert (newest.who, newest.why, newest.at, newest.source) == ("ana", "disk swap", 77.0, Source.API)
        assert b'"drain"' in bytes(newest.change)
        assert [row.number for row in await registry.history(1)] == [newest.number]
        assert [row.kind for row in await registry.history(10, kind="site")] == ["site"]
        assert len(await registry.history(10, kind="appliance", name="a1")) == 2


async def test_who_stands_in_the_file_is_known_after_a_restart(path):
    async with opened(path) as registry:
        await registry.change(OPERATOR, SITE, BOX, who="file", why="start", source=Source.FILE)
    async with opened(path) as registry:
        with pytest.raises(InventoryError, match="inventory file"):
            await registry.change(RemoveAppliance("a1"), who="ana", why="gone")


async def test_changes_at_once_are_made_one_after_the_other(path):
    async with opened(path) as registry:
        await registry.change(OPERATOR, SITE, who="ana", why="new")
        boxes = [PutAppliance(Appliance(id=f"a{n}", site="lis", url=f"https://a{n}.example")) for n in range(20)]
        await asyncio.gather(*(registry.change(box, who="ana", why="new") for box in boxes))
        assert len(registry.inventory.appliances) == 20
        assert registry.inventory.version == 21
    async with opened(path) as registry:
        assert len(registry.inventory.appliances) == 20


async def test_what_is_no_registry_is_named(path, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "registry.sqlite").write_bytes(b"not a database, and long enough to be none" * 100)
    with pytest.raises(RegistryError, match=r"registry\.sqlite"):
        await opened(path).__aenter__()


async def test_a_registry_of_a_later_version_is_left_alone(path):
    async with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    database.commit()
    database.close()
    with pytest.raises(RegistryError, match="upgrade"):
        await opened(path).__aenter__()


async def test_appliances_of_a_registry_from_before_turn_up_checks_keep_their_viewers(path):
    async with opened(path) as registry:
        await registry.change(OPERATOR, SITE, BOX, who="ana", why="new")
    database = sqlite3.connect(path)
    database.execute("UPDATE meta SET value = 1 WHERE name = 'schema'")
    database.execute("UPDATE entries SET body = json_remove(body, '$.proof')")
    database.commit()
    database.close()
    async with opened(path, at=2000.0) as registry:
        assert registry.inventory.appliances["a1"].is_proven
        assert registry.inventory.appliances["a1"].proof.at == 2000.0
        newer = PutAppliance(Appliance(id="a2", site="lis", url="https://a2.example"))
        await registry.change(newer, who="ana", why="one more")
    async with opened(path, at=3000.0) as registry:
        proofs = {name: box.proof and box.proof.at for name, box in registry.inventory.appliances.items()}
        assert proofs == {"a1": 2000.0, "a2": None}, "only once"


async def test_a_registry_that_another_writes_to_refuses_and_goes_on(path):
    async with opened(path) as registry:
        before = await registry.change(OPERATOR, who="ana", why="new")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        registry._database.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(RegistryError, match="not kept"):
            await registry.change(SITE, who="ana", why="new")
        assert registry.inventory is before
        other.execute("ROLLBACK")
        other.close()
        await registry.change(SITE, who="ana", why="new")
        assert "lis" in registry.inventory.sites


async def test_after_the_end_nothing_is_changed(path):
    async with opened(path) as registry:
        pass
    with pytest.raises(RegistryError, match="closed"):
        await registry.change(OPERATOR, who="ana", why="late")
