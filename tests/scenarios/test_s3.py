"""Origins that speak S3: signed requests, ranges, conditions, and what goes wrong with credentials."""

import pytest

from tests.doubles.appliance import BLOCK, wait_until
from tests.doubles.origin import content_of
from tests.doubles.s3 import S3Server, moto, rclone

SIZE = BLOCK + 12_345


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as one, rclone(tmp_path_factory.mktemp("rclone")) as other:
        yield {"moto": one, "rclone": other}


@pytest.fixture(scope="module", params=["moto", "rclone"])
def server(request, servers):
    return servers[request.param]


@pytest.fixture(scope="module")
def bucketed(server, module_appliance):
    one = module_appliance("s3://films/catalogue", env=S3Server.environment())
    return one.start(
        origin={"endpoint_url": server.endpoint_url, "region": "us-east-1"},
        freshness={"negative": "300 ms"},
        breaker={"min_calls": 5, "open_for": "1 h"},
        listen={"workers": 1},
    )


def test_an_object_of_a_bucket_is_served_cold_and_warm(bucketed, server, path):
    content = content_of(path, SIZE)
    server.put(f"catalogue{path}", content, ContentType="video/mp4")
    cold = bucketed.get(path)
    assert (cold.status, cold.body, cold["Content-Type"]) == (200, content, "video/mp4")
    assert cold["ETag"] == server.client().head_object(Bucket="films", Key=f"catalogue{path}")["ETag"]
    bucketed.wait_stored(path)
    warm = bucketed.get(path)
    assert warm.is_hit
    assert warm.body == content
    assert bucketed.span(path, BLOCK - 5, BLOCK + 5).body == content[BLOCK - 5 : BLOCK + 5]


def test_ranges_of_a_cold_object_are_right(bucketed, server, path):
    content = content_of(path, SIZE)
    server.put(f"catalogue{path}", content)
    for start, stop in [(BLOCK + 1, BLOCK + 100), (SIZE - 1, SIZE), (0, 1)]:
        answer = bucketed.span(path, start, stop)
        assert (answer.status, answer.body) == (206, content[start:stop])
    assert bucketed.get(path, Range="bytes=-10").body == content[-10:]
    assert bucketed.get(path, Range=f"bytes={SIZE}-").status == 416


def test_names_with_any_character_are_found(bucketed, server, path):
    for name in ("a b", "é…", "per%25cent", "plus+sign", "a&b=c", "(x)'!*", "q?x"):
        content = content_of(name, 100)
        server.put(f"catalogue{path}/{name}", content)
        quoted = "".join(c if c.isalnum() and c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in name)
        answer = bucketed.get(f"{path}/{quoted}")
        assert (answer.status, answer.body) == (200, content), name


def test_what_is_not_in_the_bucket_is_404_and_remembered_briefly(bucketed, server, path):
    assert bucketed.get(path).status == 404
    content = content_of(path, 100)
    server.put(f"catalogue{path}", content)
    wait_until(lambda: bucketed.get(path).body == content, "the refusal is forgotten")


def test_keys_that_can_not_be_are_refused_without_harm(bucketed, server, path):
    for number, name in enumerate(("/", "/" + "x" * 2000, "//", "/a//b/")):
        assert bucketed.get(name).status >= 400, number
    content = content_of(path, 100)
    server.put(f"catalogue{path}", content)
    assert bucketed.get(path).body == content
    assert bucketed.metric("oca_breaker_state", source="origin") == 0


def test_an_empty_object_is_served(bucketed, server, path):
    server.put(f"catalogue{path}", b"")
    for _ in range(2):
        answer = bucketed.get(path)
        assert (answer.status, answer.body) == (200, b"")
        bucketed.wait_landed()


def test_an_object_that_is_replaced_is_never_mixed(bucketed, server, path):
    old, new = content_of(path, SIZE), content_of(path + " new", SIZE)
    server.put(f"catalogue{path}", old)
    assert bucketed.span(path, 0, 10).body == old[:10]
    bucketed.wait_landed()
    server.put(f"catalogue{path}", new)
    with bucketed.wire() as viewer:
        viewer.ask(path)
        got = viewer.rest_of_answer()
    assert got == new or (len(got) < SIZE and old.startswith(got))
    wait_until(lambda: bucketed.span(path, 0, 10).body == new[:10], "the new object is known")
    assert bucketed.get(path).body == new


def test_a_wrong_secret_gets_an_error_and_is_named_and_the_right_one_heals(servers, make_appliance, path):
    server = servers["rclone"]
    content = content_of(path, 1000)
    server.put(f"catalogue{path}", content)
    one = make_appliance("s3://films/catalogue", env=S3Server.environment(secret="wrong"))
    one.start(origin={"endpoint_url": server.endpoint_url, "region": "us-east-1"}, freshness={"negative": "100 ms"})
    answer = one.get(path)
    assert answer.status in (403, 502)
    assert b"wrong" not in answer.body
    assert not one.held(path)["held"]
    one.stop()
    healed = make_appliance("s3://films/catalogue", env=S3Server.environment())
    healed.start(origin={"endpoint_url": server.endpoint_url, "region": "us-east-1"})
    assert healed.get(path).body == content
    # Signatures and secrets are nobody's business.
    for log in (one.log, healed.log):
        assert "X-Amz-Signature" not in log.read_text()
