"""A bucket over a real S3 protocol: what is there, what is not, and what goes wrong."""

import pytest

from fill.bucket import Bucket, Entry
from fill.errors import BucketError, BucketRefused, BucketUnreachable, SettingsError, SomebodyElse
from tests.doubles.appliance import free_port


def test_what_is_written_can_be_read_listed_and_removed(bucket):
    assert bucket.read("fill/a.json", 100) is None
    bucket.write("fill/a.json", b"one")
    bucket.write("fill/b/c.json", b"three")
    assert bucket.read("fill/a.json", 100) == b"one"
    assert [(entry.key, entry.size_bytes) for entry in bucket.entries("fill/")] == [
        ("fill/a.json", 3),
        ("fill/b/c.json", 5),
    ]
    assert bucket.folders("fill/") == ["b"]
    bucket.remove("fill/a.json")
    bucket.remove("fill/a.json")
    assert bucket.read("fill/a.json", 100) is None


def test_a_copy_has_the_same_bytes_and_of_nothing_there_is_none(bucket):
    bucket.write("x", b"one")
    bucket.copy("x", "deep/y")
    assert bucket.read("deep/y", 100) == b"one"
    with pytest.raises(BucketError, match="not there"):
        bucket.copy("z", "y")


def test_an_etag_changes_with_the_bytes_and_only_then(bucket):
    def etag():
        (entry,) = bucket.entries("x")
        assert isinstance(entry, Entry)
        return entry.etag

    bucket.write("x", b"one")
    first = etag()
    bucket.write("x", b"one")
    assert etag() == first
    bucket.write("x", b"two")
    assert etag() != first


def test_a_listing_goes_on_over_many_pages(bucket, monkeypatch):
    monkeypatch.setattr("fill.bucket._PAGE", 2)
    names = [f"many/{number}" for number in range(5)]
    for name in names:
        bucket.write(name, b"")
    assert [entry.key for entry in bucket.entries("many/")] == names


def test_a_new_object_is_written_once(bucket):
    bucket.write("x", b"mine", is_new=True)
    with pytest.raises(SomebodyElse, match="somebody else wrote it first"):
        bucket.write("x", b"yours", is_new=True)
    assert bucket.read("x", 100) == b"mine"


def test_what_is_larger_than_it_can_be_is_not_read(bucket):
    bucket.write("x", b"12345")
    with pytest.raises(BucketError, match=r"5 bytes; allowed: 4"):
        bucket.read("x", 4)


def test_a_file_comes_whole_or_not_at_all(bucket, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"before")
    assert not bucket.fetch("x", path)
    assert path.read_bytes() == b"before"
    bucket.write("x", b"after")
    assert bucket.fetch("x", path)
    assert path.read_bytes() == b"after"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("url", ["", "films", "http://films", "s3://", "s3:///prefix", "s3://films?x=1"])
def test_what_is_no_bucket_is_refused_before_anything_is_sent(url):
    with pytest.raises(SettingsError, match="allowed: s3://bucket"):
        Bucket(url)


def test_a_bucket_that_is_not_there_is_named(s3, credentials):
    nowhere = Bucket("s3://nowhere", s3.endpoint_url)
    with pytest.raises(BucketRefused, match="there is no bucket nowhere"):
        nowhere.write("x", b"")
    with pytest.raises(BucketRefused, match="there is no bucket nowhere"):
        list(nowhere.entries(""))


def test_a_store_that_does_not_answer_is_named(credentials):
    with pytest.raises(BucketUnreachable, match="no answer from http://127"):
        Bucket("s3://films", f"http://127.0.0.1:{free_port()}").read("x", 1)
