"""The document of metrics says what processes show, and names are as Prometheus' users expect them."""

import re

import pytest

from tests.docs.metrics import DOCUMENT, described, document

#: Of counters, what stands before _total; of gauges and histograms, the end. None: they count things.
UNITS = ("bytes", "seconds", "ratio", "bytes_per_second", "timestamp_seconds")
NO_UNITS = ("_ms", "_milliseconds", "_bps", "_percent", "_kb", "_mb", "_minutes", "_bits", "_share")


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    return described(tmp_path_factory.mktemp("machines"))


@pytest.fixture(scope="module")
def shown(machines):
    return [one for family in machines.values() for one in family]


def test_the_document_is_current(machines):
    assert document(machines) == DOCUMENT.read_text(), "make metrics writes it anew"


def test_no_two_machines_mean_different_things_by_one_name(shown):
    names = [one.name for one in shown]
    assert sorted(names) == sorted(set(names))


def test_names_have_the_form_and_the_units_that_prometheus_wants(shown):
    for one in shown:
        assert re.fullmatch(r"oca(_[a-z0-9]+)+", one.name), one
        assert not any(part in f"{one.name}_" for part in (f"{unit}_" for unit in NO_UNITS)), one
        assert one.name.endswith("_total") == (one.type == "counter"), one
        if one.type == "histogram" or "timestamp" in one.name:
            assert one.name.endswith("_seconds"), one
        for label in one.labels:
            assert re.fullmatch(r"[a-z_]+", label), one
            assert label not in ("appliance", "job", "instance", "operator", "country"), "discovery gives these"


def test_each_is_said_in_a_sentence_of_its_own(shown):
    for one in shown:
        assert re.fullmatch(r"[A-Z0-9].{8,}\.", one.words), one
        assert "|" not in one.words, one
    assert len({one.words for one in shown}) == len(shown)
