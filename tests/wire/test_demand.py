"""Demand and stock: names of renditions and keys, and what is no stock."""

import pytest
from pyroaring import BitMap

from wire.codec import WireError, encode
from wire.demand import SCHEMA, Stock, demand_key, folder_of, read_stock, stock_key
from wire.heartbeat import DeviceState


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/titles/film/720p.1f/seg-1.m4s", "/titles/film/720p.1f"),
        ("/titles/film/720p.1f/deep/er.m4s", "/titles/film/720p.1f"),
        ("/titles/film/master.m3u8", "/titles/film"),
        ("/titles/film/", "/titles/film"),
        ("/titles/film", ""),
        ("/titles/Film/720p/seg-1.m4s", ""),
        ("/posters/film.jpg", ""),
        ("/catalogue/titles/film.json", ""),
        ("", ""),
    ],
)
def test_an_object_belongs_to_the_folder_of_its_rendition(path, folder):
    assert folder_of(path) == folder


def test_where_things_lie():
    assert demand_key("2026-11-25", 4, "a1") == "demand/date=2026-11-25/hour=04/a1.parquet"
    assert stock_key("a1") == "stock/a1.json"


def test_stock_comes_out_as_it_went_in():
    stock = Stock(
        appliance="a1",
        at=1.5,
        devices=(DeviceState(id="d", tier="hdd", standing="online", capacity_bytes=10, used_bytes=3),),
        pledge_share=0.8,
        link_bps=10**10,
        holdings=BitMap([1, 7]).serialize(),
    )
    assert read_stock(encode(stock)) == stock


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "not a Stock"),
        (encode(Stock(appliance="a1", at=0.0, schema=SCHEMA + 1)), "upgrade"),
        (encode(Stock(appliance="a1", at=0.0, pledge_share=2.0)), "pledge_share"),
    ],
)
def test_what_is_no_stock_is_refused(body, says):
    with pytest.raises(WireError, match=says):
        read_stock(body)
