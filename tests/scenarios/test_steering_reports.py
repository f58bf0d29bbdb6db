"""An appliance and steering: what is told is true, what is ordered is done, and neither needs the other to live."""

import itertools
import os
import signal
from contextlib import ExitStack

import pytest

from tests.doubles.appliance import BLOCK, free_port, wait_until
from tests.doubles.fake_steering import TOKEN, Steering, refusal, settings
from tests.doubles.published import publish, rendition


@pytest.fixture
def steering():
    with Steering() as steering:
        yield steering


@pytest.fixture
def reporting(make_appliance, steering, tmp_path):
    """An appliance that reports to `steering`."""
    return make_appliance().start(steering=settings(steering, folder=tmp_path))


def replicas_of(appliance):
    return appliance.status()["steering"]["replicas"]


def read(appliance, published):
    """Every byte of a title."""
    for one in published.renditions:
        for item in one.objects:
            assert len(appliance.get(item.path).body) == item.size_bytes
            appliance.wait_stored(item.path)


# --- Heartbeats -------------------------------------------------------------------------------------------------------


def test_heartbeats_say_how_the_appliance_is(reporting, steering, origin, path):
    first = steering.wait_heartbeat()
    assert (steering.told[0].appliance, steering.told[0].authorization) == ("oca-test", f"Bearer {TOKEN}")
    assert (first.appliance, first.ready, first.reasons, first.draining) == ("oca-test", True, (), False)
    assert first.max_connections == 2 * 20_000
    assert first.health == 1.0
    (device,) = first.devices
    assert (device.tier, device.standing, device.capacity_bytes) == ("nvme", "online", 1024**3)
    assert 0 <= first.cpu <= 1
    assert first.hit_ratio is None
    second = steering.wait_heartbeat()
    assert second.boot == first.boot
    assert second.sequence > first.sequence
    assert second.sent_at > first.sent_at
    origin.put(path, 2 * BLOCK)
    with reporting.wire() as kept:
        kept.get(path)
        steering.wait_heartbeat(lambda one: one.connections == 1, "an open connection is told")
    steering.wait_heartbeat(lambda one: one.connections == 0, "its end is told")
    reporting.wait_stored(path)
    full = steering.wait_heartbeat(lambda one: one.devices[0].used_bytes > 2 * BLOCK - 1, "what is used is told")
    assert full.devices[0].used_bytes == reporting.status()["devices"][0]["used_bytes"]


def test_what_goes_out_by_the_network_cards_is_told_and_so_is_the_hit_ratio(reporting, steering, origin, path):
    steering.wait_heartbeat()
    origin.put(path, 4 * BLOCK)
    reporting.get(path)
    reporting.wait_stored(path)
    before = steering.heartbeats[-1].sequence
    for _ in range(16):
        assert reporting.get(path).is_hit
    # Loopback carries what others send as well: what we sent was there at least.
    steering.wait_heartbeat(lambda one: one.hit_ratio is not None, "enough was sent to tell a hit ratio")
    steering.wait_heartbeat()
    beats = [one for one in steering.heartbeats if one.sequence >= before]
    spans = [after.sent_at - one.sent_at for one, after in itertools.pairwise(beats)]
    sent = sum(one.egress_bps * span / 8 for one, span in zip(beats[1:], spans, strict=True))
    assert sent > 16 * 4 * BLOCK / 2
    assert 0.5 < beats[-1].hit_ratio < 1


def test_the_link_is_as_fast_as_the_settings_say(make_appliance, steering, tmp_path):
    make_appliance().start(steering=settings(steering, folder=tmp_path, link_speed="40 Gbit/s"))
    assert steering.wait_heartbeat().link_bps == 40_000_000_000


def test_what_the_operator_drains_is_told(reporting, steering):
    reporting.control("POST", "/v1/drain")
    told = steering.wait_heartbeat(lambda one: one.draining, "draining is told")
    assert (told.ready, told.reasons) == (False, ("draining",))
    reporting.control("POST", "/v1/resume")
    assert steering.wait_heartbeat(lambda one: not one.draining, "resuming is told").ready


def test_metrics_and_status_tell_of_heartbeats(reporting, steering):
    wait_until(lambda: reporting.metric("oca_reports_total", outcome="ok") >= 2, "heartbeats are counted")
    assert reporting.metric("oca_report_last_success_timestamp_seconds", replica="0") > 1e9
    (replica,) = replicas_of(reporting)
    assert (replica["url"], replica["outcome"], replica["error"]) == (steering.url, "ok", "")
    assert replica["last_success_age"] is not None


def test_without_the_section_nothing_is_reported(appliance):
    assert appliance.status()["steering"] is None
    assert not appliance.metrics().has("oca_holdings_version")


# --- Steering that is away, slow, or of another mind ------------------------------------------------------------------


def test_a_replica_that_is_dead_slow_or_refuses_delays_no_other(make_appliance, steering, tmp_path, origin, path):
    with Steering() as slow, Steering() as refusing, Steering() as dead:
        slow.is_silent = True
        refusing.refusal = refusal(403, "oca-test is not in the inventory\x1b[31m")
        dead.port = free_port()
        section = settings(slow, refusing, dead, steering, folder=tmp_path)
        one = make_appliance().start(steering=section)
        for _ in range(3):
            steering.wait_heartbeat()
        wait_until(lambda: all(replica["outcome"] for replica in replicas_of(one)), "each was tried")
        assert [replica["outcome"] for replica in replicas_of(one)] == ["late", "refused", "failed", "ok"]
        assert replicas_of(one)[1]["error"] == "answered 403: oca-test is not in the inventory [31m"
        # Said once, not with every heartbeat.
        for _ in range(3):
            steering.wait_heartbeat()
        log = one.log.read_text()
        assert log.count(f"steering at {slow.url} does not hear us") == 1
        assert log.count("is not in the inventory [31m") == 1
        assert one.metric("oca_reports_total", outcome="refused") >= 1
        # Refused is refused: it is asked less often than the one that answers.
        assert len(refusing.heartbeats) < len(steering.heartbeats)
        # And players are served.
        assert one.get(path).status == 404
        content = origin.put(f"{path}.mp4", 100)
        assert one.get(f"{path}.mp4").body == content
        slow.is_silent = False
        slow.wait_heartbeat()
        wait_until(lambda: replicas_of(one)[0]["outcome"] == "ok", "the slow one answers again")
        assert f"steering at {slow.url} hears us" in one.log.read_text()


ANSWERS = [
    ((401, b'{"error": "who are you?"}'), "refused", "answered 401: who are you?"),
    ((404, b"<html>"), "refused", "answered 404"),
    ((503, b""), "failed", "answered 503"),
    ((200, b"[]"), "failed", "not a HeartbeatAnswer"),
    ((200, b'{"drain": "yes"}'), "failed", "not a HeartbeatAnswer"),
    ((200, b" " * 70_000), "failed", "more than 65536 bytes"),
    ((302, b""), "failed", "answered 302"),
]


def test_an_answer_that_is_none_is_told_and_orders_nothing(make_appliance, tmp_path):
    with ExitStack() as stack:
        replicas = [stack.enter_context(Steering()) for _ in ANSWERS]
        for replica, (answer, _, _) in zip(replicas, ANSWERS, strict=True):
            replica.refusal = answer
        one = make_appliance().start(steering=settings(*replicas, folder=tmp_path))
        wait_until(lambda: all(replica["outcome"] for replica in replicas_of(one)), "each was tried")
        for replica, (_, outcome, words) in zip(replicas_of(one), ANSWERS, strict=True):
            assert replica["outcome"] == outcome
            assert words in replica["error"]
        assert not one.status()["draining"]


# --- Orders -----------------------------------------------------------------------------------------------------------


def test_steering_drains_the_appliance_and_takes_it_back(reporting, steering, origin, path):
    content = origin.put(path, 100)
    with reporting.wire() as kept:
        assert kept.get(path)["Connection"] is None
        steering.drain = True
        wait_until(lambda: reporting.control("GET", "/readyz").status == 503, "it drains")
        assert reporting.control("GET", "/readyz").json()["reasons"] == ["draining by order of steering"]
        answer = kept.get(path)
        assert (answer.body, answer["Connection"]) == (content, "close")
        kept.wait_closed()
    steering.wait_heartbeat(lambda one: one.draining, "draining is told")
    assert reporting.status()["steering"]["drain"]
    steering.drain = False
    wait_until(lambda: reporting.control("GET", "/readyz").status == 200, "it is back")
    with reporting.wire() as kept:
        for _ in range(2):
            assert kept.get(path)["Connection"] is None


def test_operator_and_steering_each_take_back_only_what_they_said(reporting, steering):
    steering.drain = True
    wait_until(lambda: reporting.status()["draining"], "it drains")
    assert reporting.control("POST", "/v1/drain").json() == {"draining": True}
    assert reporting.control("POST", "/v1/resume").json() == {"draining": True}
    assert reporting.control("GET", "/readyz").json()["reasons"] == ["draining by order of steering"]
    reporting.control("POST", "/v1/drain")
    steering.drain = False
    wait_until(lambda: not reporting.status()["steering"]["drain"], "steering takes its order back")
    assert reporting.control("GET", "/readyz").json()["reasons"] == ["draining"]


def test_an_order_outlives_steering_the_keeper_and_a_reload(reporting, steering, tmp_path):
    steering.drain = True
    wait_until(lambda: reporting.status()["draining"], "it drains")
    steering.is_silent = True
    wait_until(lambda: replicas_of(reporting)[0]["outcome"] == "late", "steering is away")
    (keeper,) = reporting.keeper_pids
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: reporting.keeper_pids not in ([], [keeper]), "there is another keeper")
    assert wait_until(reporting.status, "it answers")["steering"]["drain"]
    reporting.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "workers replaced" in reporting.log.read_text(), "it is reloaded")
    wait_until(lambda: len(reporting.status()["workers"]) == 2, "the new keeper is up")
    assert reporting.status()["steering"]["drain"]
    # Without the section nobody is left who could take the order back.
    reporting.config.write_text(reporting.config.read_text().partition("[steering]")[0])
    reporting.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reporting.log.read_text().count("workers replaced") == 2, "it is reloaded")
    wait_until(lambda: reporting.control("GET", "/readyz").status == 200, "it serves again")


def test_a_reload_keeps_reports_going(reporting, steering):
    before = steering.wait_heartbeat()
    reporting.process.send_signal(signal.SIGHUP)
    after = steering.wait_heartbeat(lambda one: one.boot != before.boot, "the new keeper reports")
    assert after.sequence == 1
    assert steering.wait_heartbeat(lambda one: one.boot == after.boot and one.ready, "and goes on").sequence > 1


def test_a_token_that_was_exchanged_is_used_at_once(reporting, steering, tmp_path):
    steering.wait_heartbeat()
    (tmp_path / "token").write_text("another")
    wait_until(lambda: steering.told[-1].authorization == "Bearer another", "the new token is used")


# --- Holdings ---------------------------------------------------------------------------------------------------------


def test_what_was_read_whole_is_held_until_it_is_purged(reporting, steering, origin):
    title = "film-that-is-read"
    short = {f"seg_{number:05}.m4s": 100_000 + number for number in range(5)}
    video = rendition(title, 7, {"media.m3u8": 500, **short})
    audio = rendition(title, 8, {"audio.mp4": 70 * 1024 * 1024})
    unread = rendition(title, 9, short)
    publish(origin, title, video, audio, unread)
    steering.wait_held(set())
    for item in (*video.objects, *audio.objects):
        reporting.get(item.path)
        reporting.wait_stored(item.path)
    steering.wait_held({7, 8})
    holdings = steering.holdings[-1]
    assert holdings.appliance == "oca-test"
    wait_until(lambda: steering.heartbeats[-1].holdings_version == holdings.version, "the version is told")
    assert reporting.metric("oca_holdings_renditions") == 2
    assert reporting.metric("oca_holdings_version") == holdings.version
    reporting.purge(audio.objects[0].path)
    steering.wait_held({7})
    assert reporting.control("POST", "/v1/purge", {"prefix": f"/titles/{title}/"}).json()["purged"] == 6
    steering.wait_held(set())
    assert steering.holdings[-1].version > holdings.version


def test_what_is_held_is_known_after_a_restart_without_asking_the_catalogue(reporting, steering, origin):
    title = "film-that-stays"
    published = publish(
        origin, title, rendition(title, 70, {"a.m4s": 5 * BLOCK}), rendition(title, 71, {"b.m4s": 1000})
    )
    read(reporting, published)
    steering.wait_held({70, 71})
    asked = origin.count(f"/catalogue/titles/{title}.json")
    assert asked == 1
    boot = steering.heartbeats[-1].boot
    reporting.process.send_signal(signal.SIGHUP)
    steering.wait_heartbeat(lambda one: one.boot != boot and one.holdings_version > 0, "the new keeper has counted")
    wait_until(lambda: steering.holdings[-1].boot != boot, "and told")
    assert steering.held == {70, 71}
    assert origin.count(f"/catalogue/titles/{title}.json") == asked


def test_a_device_that_goes_takes_its_renditions_with_it(make_appliance, steering, origin, tmp_path):
    one = make_appliance()
    one.devices = [one.folder / "first", one.folder / "second"]
    one.start(steering=settings(steering, folder=tmp_path))
    title = "film-on-two-disks"
    published = publish(origin, title, *(rendition(title, number, {"a.mp4": 1000}) for number in range(100, 116)))
    read(one, published)
    steering.wait_held(set(range(100, 116)))
    on_second = {
        made.number
        for made in published.renditions
        if one.held(made.objects[0].path)["extents"][0]["device"]
        == next(device["id"] for device in one.status()["devices"] if device["path"] == str(one.devices[1]))
    }
    assert 0 < len(on_second) < 16
    one.devices[1].rename(one.folder / "pulled")
    steering.wait_held(set(range(100, 116)) - on_second)


def test_of_a_document_that_does_not_fit_nothing_is_believed(reporting, steering, origin):
    title = "film-with-a-bad-document"
    origin.put(f"/titles/{title}/video/a.m4s", 1000)
    origin.put(f"/catalogue/titles/{title}.json", b"{}", cache_control="max-age=60")
    assert reporting.get(f"/titles/{title}/video/a.m4s").status == 200
    wait_until(lambda: "what is held of it can't be told" in reporting.log.read_text(), "the log says so")
    steering.wait_held(set())
