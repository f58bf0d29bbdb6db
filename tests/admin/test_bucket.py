"""What a store may do to us, in words that name it. rclone refuses wrong secrets and ignores conditions."""

import hashlib
import random
import socket
import subprocess
from dataclasses import dataclass

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.bucket import WHOLE_BYTES, Bucket, FileUpload, Upload, _parts
from admin.errors import ConditionFailed, StoreRefused, StoreUnreachable, UsageError

NOTE = Upload("/titles/a/note.txt", b"a note", "text/plain", "no-cache")


@pytest.fixture(scope="module")
def rclone_s3(rclone, tmp_path_factory):
    """An S3 server that checks signatures and knows no conditional writes; its key is testkey, testsecret."""
    folder = tmp_path_factory.mktemp("rclone")
    (folder / "films").mkdir()
    command = [rclone, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", "testkey,testsecret", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "Starting s3 server on" in line)
        yield line.partition("[")[2].partition("/]")[0]
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


@dataclass(frozen=True)
class Key:
    name: str
    secret: str

    def session(self) -> boto3.Session:
        return boto3.Session(self.name, self.secret, region_name="us-east-1")


GOOD = Key("testkey", "testsecret")


def test_the_right_key_is_let_in(rclone_s3):
    bucket = Bucket("s3://films", rclone_s3, GOOD.session())
    bucket.require_usable()
    bucket.put(NOTE)
    assert bucket.read(NOTE.path).body == b"a note"
    assert bucket.sizes("/titles/a") == {NOTE.path: 6}


@pytest.mark.parametrize("key", [Key("testkey", "wrongsecret"), Key("nobodyskey", "testsecret")])
def test_a_wrong_key_is_refused_and_said_to_be_so(rclone_s3, key):
    bucket = Bucket("s3://films", rclone_s3, key.session())
    for ask in (bucket.require_usable, lambda: bucket.put(NOTE), lambda: bucket.read(NOTE.path)):
        with pytest.raises(StoreRefused, match=r"wrong credentials, or no permission for bucket films"):
            ask()


def test_a_store_that_ignores_conditions_is_found_out(rclone_s3):
    with pytest.raises(StoreRefused, match="does not honour conditional writes"):
        Bucket("s3://films", rclone_s3, GOOD.session()).require_conditional_writes()


def test_a_store_that_honours_conditions_is_trusted(store):
    for _ in range(2):
        store.open().require_conditional_writes()


def test_a_bucket_that_is_not_there_is_named(s3, rclone_s3):
    for bucket in (Bucket("s3://absent-films/x", s3), Bucket("s3://absent-films", rclone_s3, GOOD.session())):
        with pytest.raises(StoreRefused, match="no bucket absent-films"):
            bucket.require_usable()


def test_no_credentials_are_asked_for_by_name(s3, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Bucket("s3://films", s3).require_usable()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefused, match="nobody"):
        Bucket("s3://films", s3)


def test_nobody_at_the_endpoint_is_said_to_be_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StoreUnreachable, match=f"no answer from http://127.0.0.1:{port}"):
        Bucket("s3://films", f"http://127.0.0.1:{port}").require_usable()


def test_a_write_lands_only_if_the_condition_holds(store):
    bucket = store.open()
    bucket.create(NOTE)
    with pytest.raises(ConditionFailed):
        bucket.create(NOTE)
    other = Upload(NOTE.path, b"another", "text/plain", "no-cache")
    bucket.replace(other, bucket.etag(NOTE.path))
    with pytest.raises(ConditionFailed):
        bucket.replace(NOTE, '"00000000000000000000000000000000"')
    with pytest.raises(ConditionFailed):
        bucket.replace(Upload("/absent", b"", "text/plain", "no-cache"), '"00000000000000000000000000000000"')
    assert bucket.read(NOTE.path).body == b"another"


def test_checksums_are_kept_by_any_store(store, rclone_s3):
    for bucket in (store.open(), Bucket("s3://films", rclone_s3, GOOD.session())):
        bucket.put(NOTE)
        assert bucket.sha256(NOTE.path) == NOTE.sha256
        assert bucket.sha256("/absent") is None


def test_an_object_that_others_wrote_has_no_checksum_of_ours(store):
    store.client.put_object(Bucket=store.bucket, Key="catalogue/plain", Body=b"x")
    assert store.open().sha256("/plain") is None


def test_what_is_not_there_is_none(store):
    bucket = store.open()
    assert (bucket.read("/absent"), bucket.etag("/absent"), bucket.sizes("/absent")) == (None, None, {})


def test_every_page_of_a_long_list_is_read(store):
    bucket = store.open()
    store.client.put_object(Bucket=store.bucket, Key="catalogue/titles/ab", Body=b"not below /titles/a")
    for number in range(3):
        store.client.put_object(Bucket=store.bucket, Key=f"catalogue/titles/a/{number}", Body=b"x" * number)
    assert bucket.sizes("/titles/a") == {"/titles/a/0": 0, "/titles/a/1": 1, "/titles/a/2": 2}


@pytest.mark.parametrize("url", ["s3://films", "s3://films/", "s3://films/a/b.c_d-e/", "s3://my.films.example/x"])
def test_a_bucket_with_or_without_a_prefix_is_understood(url, s3):
    assert Bucket(url, s3).url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "films", "http://films", "s3://", "s3:///x", "s3://Films", "s3://f", "s3://films//x", "s3://films/../x"),
        *("s3://films/a b", "s3://films/a?b", "s3://films/./x", "S3://films", "s3://films/é", "s3://films\n/x"),
    ],
)
def test_any_other_url_is_refused_with_what_is_allowed(url):
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        Bucket(url)


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9000", "ftp://x", "http://", "http://x/path", "http://x:99999", "http://[::1"]
)
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(UsageError, match="endpoint"):
        Bucket("s3://films", endpoint)


@given(st.text(max_size=40))
def test_no_text_makes_a_key_outside_the_prefix(text):
    try:
        name, prefix = _parts(f"s3://films/{text}")
    except UsageError:
        return
    assert name == "films"
    assert not {"", ".", ".."} & set(prefix.split("/") if prefix else [])


@pytest.fixture
def large(tmp_path):
    """Of two parts and a piece."""
    body = random.Random(1).randbytes(2 * WHOLE_BYTES + 12_345)
    file = tmp_path / "track.mp4"
    file.write_bytes(body)
    return FileUpload("/titles/a/track.mp4", file, hashlib.sha256(body).hexdigest(), "video/mp4", "no-cache")


def test_a_large_file_is_written_in_parts_and_every_byte_is_told(store, rclone_s3, large):
    for bucket in (store.open(), Bucket("s3://films", rclone_s3, GOOD.session())):
        told = []
        bucket.put_file(large, told.append)
        assert sum(told) == large.file.stat().st_size
        assert bucket.read(large.path).body == large.file.read_bytes()
    # (rclone forgets what it was told of an object that came in parts: there, a run that goes on sends it again.)
    assert store.open().sha256(large.path) == large.sha256
    head = store.head(large.path)
    assert (head["ContentType"], head["CacheControl"]) == ("video/mp4", "no-cache")
    assert head["ETag"].endswith('-3"')


def test_a_large_file_that_is_refused_in_the_middle_leaves_no_parts(watched, large):
    refused = iter([None, None, 403])
    watched.on_put = lambda _path: next(refused, 403)
    with pytest.raises(StoreRefused, match=r"/titles/a/track\.mp4"):
        watched.store.open().put_file(large, lambda _more: None)
    watched.wait_until_idle()
    assert watched.store.paths() == []
    assert not watched.store.client.list_multipart_uploads(Bucket=watched.store.bucket).get("Uploads")


def test_a_large_file_to_a_store_that_is_away_is_said_to_be_so(large):
    bucket = Bucket("s3://films", "http://127.0.0.1:9", GOOD.session())
    with pytest.raises(StoreUnreachable, match=r"/titles/a/track\.mp4: no answer"):
        bucket.put_file(large, lambda _more: None)
