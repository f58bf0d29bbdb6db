"""What players read: the names that they know, and that what must be there is."""

import json

import pytest

from wire.codec import WireError, decode, encode
from wire.steer import Option, PathwayClone, SteerAnswer, SteeringManifest, UriReplacement


def manifest(**fields):
    plain = {"version": 1, "ttl": 60, "reload_uri": "https://steer.example/v1/content-steering", "priority": ("a1",)}
    return SteeringManifest(**{**plain, **fields})


def test_a_manifest_has_the_names_that_players_read():
    clone = PathwayClone(base="base", id="a1", uri=UriReplacement(host="a1.edge.example"))
    assert json.loads(encode(manifest(clones=(clone,)))) == {
        "VERSION": 1,
        "TTL": 60,
        "RELOAD-URI": "https://steer.example/v1/content-steering",
        "PATHWAY-PRIORITY": ["a1"],
        "PATHWAY-CLONES": [{"BASE-ID": "base", "ID": "a1", "URI-REPLACEMENT": {"HOST": "a1.edge.example"}}],
    }


def test_version_and_ttl_are_always_written_and_clones_only_if_there_are_any():
    # Without TTL hls.js asks again at once, for ever.
    assert set(json.loads(encode(manifest(ttl=1)))) == {"VERSION", "TTL", "RELOAD-URI", "PATHWAY-PRIORITY"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"VERSION":2,"TTL":60,"RELOAD-URI":"x","PATHWAY-PRIORITY":[]}',
        b'{"VERSION":1,"TTL":0,"RELOAD-URI":"x","PATHWAY-PRIORITY":[]}',
        b'{"VERSION":1,"RELOAD-URI":"x","PATHWAY-PRIORITY":[]}',
        b'{"VERSION":1,"TTL":60,"PATHWAY-PRIORITY":[]}',
    ],
)
def test_a_manifest_without_them_is_none(body):
    with pytest.raises(WireError, match="not a SteeringManifest"):
        decode(body, SteeringManifest)


def test_messages_come_back_as_they_were():
    answer = SteerAnswer(decision="r1-1", ttl=60, options=(Option(id="a1", url="https://a1/x"),), reason="home")
    assert decode(encode(answer), SteerAnswer) == answer
    clone = PathwayClone(base="b", id="a1", uri=UriReplacement(host="h"))
    whole = manifest(clones=(clone,), priority=("a1", "b"))
    assert decode(encode(whole), SteeringManifest) == whole
