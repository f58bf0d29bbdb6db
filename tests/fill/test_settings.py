"""The planner's settings: what is wrong is named with its line, and what is allowed."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fill.errors import SettingsError
from fill.settings import Signing, parse_settings, read_settings, signing_key

PLAIN = """\
state_dir = "/var/lib/oca-fill"
[control]
bucket = "s3://control/prefix"
[fleet]
steering = "http://127.0.0.1:9001"
[signing]
key = "/etc/oca-fill/key.pem"
kid = "2026"
"""


def test_the_shortest_settings_say_all_that_is_needed():
    settings = parse_settings(PLAIN, "fill.toml")
    assert settings.control.bucket == "s3://control/prefix"
    assert settings.catalogue is None
    assert settings.days == 28
    assert settings.placement.churn == 0.05


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"/var/lib/oca-fill"', '"var/lib"', "line 1: state_dir"),
        ("s3://control/prefix", "http://control", r"line 3: control.bucket: read 'http://control'; allowed: s3://"),
        ("[fleet]", '[catalogue]\nbucket = "x"\n[fleet]', "catalogue.bucket"),
        ("[fleet]", '[fleet]\nfile = "/x"', "give either steering or file"),
        ('steering = "http://127.0.0.1:9001"', "", "give either steering or file"),
        ("http://127.0.0.1:9001", "127.0.0.1:9001", "fleet.steering"),
        ("[signing]", '[fleet.timezones]\nPT = "Lisbon"\n[signing]', "Europe/Lisbon"),
        ("[control]", "[forecast]\ndays = 0\n[control]", "forecast.days"),
        ("[control]", "dayz = 3\n[control]", "dayz"),
        ("[control]", '[control]\nendpoint_url = "moto"', "endpoint_url"),
        ('kid = "2026"', "", "kid"),
    ],
)
def test_a_mistake_is_named(before, after, says):
    assert before in PLAIN
    with pytest.raises(SettingsError, match=says):
        parse_settings(PLAIN.replace(before, after), "fill.toml")


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        read_settings(str(tmp_path / "nothing"))
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="UTF-8"):
        read_settings(str(tmp_path / "latin"))


def test_the_key_is_an_ed25519_key_and_nothing_else(tmp_path):
    def written(key):
        path = tmp_path / "key.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Signing(key=str(path), kid="k")

    key = Ed25519PrivateKey.generate()
    assert signing_key(written(key)).public_key() == key.public_key()
    with pytest.raises(SettingsError, match="another kind of key; allowed: an Ed25519 key"):
        signing_key(written(generate_private_key(SECP256R1())))
    (tmp_path / "key.pem").write_text("secret")
    with pytest.raises(SettingsError, match="allowed: an Ed25519 key"):
        signing_key(Signing(key=str(tmp_path / "key.pem"), kid="k"))
    with pytest.raises(SettingsError, match="No such file"):
        signing_key(Signing(key=str(tmp_path / "nothing"), kid="k"))
