"""POST /v1/probe: what an appliance says of itself when it is looked at, and what it does not do meanwhile."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.doubles.mounts import lacking, mounted

MIB = 1024 * 1024
SMALL = {"size_bytes": 16 * MIB}
PATH = "/turn-up/1.bin"


def probe(box, *parts, **more):
    return box.control("POST", "/v1/probe", {**SMALL, **({"parts": parts} if parts else {}), **more})


def found(box, *parts, **more):
    got = probe(box, *parts, **more)
    assert got.status == 200, got.body
    return got.json()


def test_all_of_it_is_looked_at(appliance, origin):
    origin.put(PATH, 1000)
    said = found(appliance, path=PATH)
    assert (said["appliance"], bool(said["version"])) == (appliance.name, True)
    (card,) = said["cards"]
    # Loopback is the card that has the film address of tests; no virtual card says how fast it is.
    assert (card["name"], card["is_up"], card["speed_bps"]) == ("lo", True, None)
    assert "127.0.0.1" in card["addresses"]
    (device,) = said["devices"]
    assert (device["standing"], device["size_bytes"], device["trouble"]) == ("online", 16 * MIB, "")
    assert device["write_bytes_per_second"] > 0
    assert device["read_bytes_per_second"] > 0
    (source,) = said["sources"]
    assert (source["name"], source["status"], source["trouble"]) == ("origin", 206, "")
    assert source["first_byte"] > 0
    assert said["clock"]["now"] > 1.7e9
    assert said["certificates"] == []


def test_only_what_is_asked_for_is_looked_at(appliance, origin, path):
    said = found(appliance, "clock", path=path)
    assert said["clock"] is not None
    assert [said[part] for part in ("cards", "devices", "sources", "certificates")] == [None] * 4
    assert origin.count(path) == 0


def test_nothing_is_left_on_the_devices(appliance):
    before = {file.name for device in appliance.devices for file in device.iterdir()}
    found(appliance, "devices")
    assert {file.name for device in appliance.devices for file in device.iterdir()} == before


def test_of_two_probes_at_once_one_is_refused_and_the_next_is_welcome(appliance, origin, path):
    origin.put(path, 1000)
    gate = origin.gate(path, 0)
    first = []
    asking = threading.Thread(target=lambda: first.append(probe(appliance, "sources", path=path)))
    asking.start()
    gate.wait_reached()
    second = probe(appliance, "clock")
    assert (second.status, "under way already" in second.json()["error"]) == (409, True)
    gate.open()
    asking.join()
    assert first[0].status == 200
    assert probe(appliance, "clock").status == 200


def test_an_order_that_makes_no_sense_is_refused(appliance):
    assert probe(appliance, "moon").status == 400
    assert probe(appliance, size_bytes=1).status == 400


def test_a_source_that_is_down_is_named_and_the_others_are_told(make_appliance, origin):
    box = make_appliance("http://127.0.0.1:9").start(parents=[{"url": origin.url}])
    origin.put(PATH, 1000)
    parent, source = found(box, "sources", path=PATH)["sources"]
    assert (parent["name"], parent["status"]) == ("parent-1", 206)
    assert (source["name"], source["status"], bool(source["trouble"])) == ("origin", None, True)


def certificate(folder, days):
    """A certificate that ends so many days from now, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "oca-test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "box.pem", folder / "box.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private, made.not_valid_after_utc.timestamp()


def test_when_its_certificate_ends_is_told_and_what_can_not_be_read_is_said(make_appliance, tmp_path):
    pem, key, ends_at = certificate(tmp_path, days=5)
    box = make_appliance().start(
        steering={"urls": ["http://127.0.0.1:9"], "client_cert": str(pem), "client_key": str(key)}
    )
    told = {"name": "steering.client_cert", "ends_at": ends_at, "trouble": ""}
    assert found(box, "certificates")["certificates"] == [told]
    pem.unlink()
    (said,) = found(box, "certificates")["certificates"]
    assert (said["ends_at"], str(pem) in said["trouble"]) == (None, True)


@pytest.mark.mounts
def test_devices_that_are_read_only_or_full_are_not_measured_and_say_so(make_appliance, tmp_path):
    if lacking():
        pytest.skip(lacking())
    with mounted(tmp_path / "full", "ext4") as full, mounted(tmp_path / "frozen") as frozen:
        box = make_appliance()
        box.devices = [full.path, frozen.path]
        devices = [{"path": str(disk.path), "tier": "nvme", "capacity": "400 MiB"} for disk in (full, frozen)]
        box.start(device=devices)
        first, second = found(box, "devices")["devices"]
        assert (first["trouble"], second["trouble"], first["is_direct"]) == ("", "", True)
        left = first["free_bytes"] - 8 * MIB
        with (full.path / "somebody-elses").open("wb") as file:
            for _ in range(left // MIB):
                file.write(bytes(MIB))
        frozen.remount_read_only()
        first, second = found(box, "devices")["devices"]
        assert "too little room" in first["skipped"]
        assert first["free_bytes"] < 16 * MIB
        assert second["standing"] != "online" or "Read-only" in second["trouble"]
        box.stop()
