"""A lake as the bucket would fill it, small enough to know what a plan must say."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from fill import fleet, planning
from fill.catalogue import RENDITIONS, SCHEMA
from fill.fleet import Appliance, Fleet, Site
from fill.settings import parse_settings
from fill.wishes import Wishes
from tests.fill import stock
from wire.codec import encode
from wire.demand import Stock, stock_key
from wire.heartbeat import DeviceState

GB = 10**9
NIGHT = dt.date(2026, 11, 25)
NOW = dt.datetime(2026, 11, 25, 0, 30, tzinfo=dt.UTC).timestamp()


def folder(title, name="720p"):
    return f"/titles/{title}/{name}.0001"


class Lake:
    """`here` is the folder; `settings` are the shortest, with what a test adds."""

    def __init__(self, here, more=""):
        self.here = here
        here.mkdir(parents=True, exist_ok=True)
        text = f'state_dir = "{here}"\n[control]\nbucket = "s3://films"\n[fleet]\nfile = "/x"\n'
        self.settings = parse_settings(text + f'[signing]\nkey = "/x"\nkid = "a"\n{more}\n', "fill.toml")
        self.rows = []
        self.sites = []
        self.appliances = []
        self.stocks = {}
        self.promised = {}
        self.wishes = Wishes()

    def title(self, title, *names, size=GB, published="2026-01-01"):
        """Renditions get the numbers that are next. Returns them."""
        first = len(self.rows)
        for name in names or ("720p",):
            self.rows.append(
                {
                    "number": len(self.rows),
                    "title": title,
                    "folder": folder(title, name),
                    "kind": "video",
                    "name": name,
                    "size_bytes": size,
                    "duration": 3600.0,
                    "width": 1280,
                    "height": 720,
                    "codecs": "avc1",
                    "bandwidth_bps": 8 * size // 3600,
                    "objects": 600,
                    "published_at": dt.datetime.fromisoformat(published).replace(tzinfo=dt.UTC),
                    "etag": title,
                }
            )
        return list(range(first, len(self.rows)))

    def site(self, site, *, parent=None, country="PT", timezone="Etc/UTC"):
        self.sites.append(Site(id=site, country=country, timezone=timezone, parent=parent))
        return site

    def appliance(self, name, site, *, room=100 * GB, tiers=("hdd",), held=(), used=None, promised=(), share=1.0):
        self.appliances.append(Appliance(id=name, site=site, url=f"http://{name}", capacity_bps=10**10))
        self.promised[name] = BitMap(promised)
        self.stocks[name] = Stock(
            appliance=name,
            at=NOW - 60,
            devices=tuple(
                DeviceState(
                    id=f"{name}-{tier}",
                    tier=tier,
                    standing="online",
                    capacity_bytes=room,
                    used_bytes=room if used is None else used,
                )
                for tier in tiers
            ),
            pledge_share=share,
            link_bps=10**10,
            holdings=BitMap(held).serialize(),
        )
        return name

    def watched(self, day, hour, appliance, **titles):
        """Bytes by title, in the hour."""
        rows = [stock.row(folder(title.replace("_", "-")), bytes=count) for title, count in titles.items()]
        stock.write(self.here, str(day), hour, appliance, *rows)

    def evenings(self, appliance, days=3, **titles):
        """The same evening on each day before the night."""
        for ago in range(1, days + 1):
            self.watched(NIGHT - dt.timedelta(days=ago), 20, appliance, **titles)

    def write(self):
        path = self.here / RENDITIONS
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.rows, SCHEMA), path)
        fleet.save(self.fleet, self.here)
        (self.here / "stock").mkdir(exist_ok=True)
        for name, one in self.stocks.items():
            (self.here / stock_key(name)).write_bytes(encode(one))

    @property
    def fleet(self):
        return Fleet(sites=tuple(self.sites), appliances=tuple(self.appliances))

    def plan(self, night=NIGHT, now=NOW):
        self.write()
        return planning.planned(
            planning.Inputs(
                lake=self.here,
                night=night,
                now=now,
                settings=self.settings,
                fleet=self.fleet,
                wishes=self.wishes,
                stocks=self.stocks,
                promised=self.promised,
                catalogue="c1",
            )
        )


def orders(plan, version=1):
    return {order.appliance: order for order in plan.orders(version)}


def brought(order):
    return [bring.title for bring in order.bring]


def kept(order):
    return sorted(BitMap.deserialize(order.keep))
