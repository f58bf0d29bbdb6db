"""The agent's settings: what is wrong is named with its line, and what is allowed."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fill.agent.settings import keys_of, parse_settings, read_settings, window_of
from fill.errors import SettingsError
from wire.orders import public_key_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
PLAIN = f"""\
appliance = "lis-1"
state_dir = "/var/lib/oca-fill-agent"
timezone = "Europe/Lisbon"
[control]
bucket = "s3://control/prefix"
[order_keys]
"2026" = "{public_key_text(KEY)}"
"""


def test_the_shortest_settings_say_all_that_is_needed():
    agent = parse_settings(PLAIN, "agent.toml")
    assert keys_of(agent)["2026"].public_bytes_raw() == KEY.public_bytes_raw()
    assert (agent.window.start, agent.window.stop, agent.rate.most) == ("02:00", "14:00", 1_200_000_000)
    assert window_of(agent).at(0.0).closes - window_of(agent).at(0.0).opens == 12 * 3600


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"lis-1"', '"1 lis"', "appliance"),
        ('"/var/lib/oca-fill-agent"', '"here"', "line 2: state_dir"),
        ("Europe/Lisbon", "Lisbon", "allowed: a zone such as Europe/Lisbon"),
        ("s3://control/prefix", "control", "control.bucket"),
        ("[control]", '[control]\nendpoint_url = "x"', "control.endpoint_url"),
        (public_key_text(KEY), "abc", "what oca-fill keygen printed"),
        (f'"2026" = "{public_key_text(KEY)}"', "", "order_keys"),
        ("[control]", 'oca = "127.0.0.1"\n[control]', "oca: read '127.0.0.1'"),
        ("[control]", 'listen = "here"\n[control]', "listen"),
        ("[control]", 'poll = "2 h"\n[control]', "1 s to 1 h"),
        ("[control]", 'pause = "1 ms"\n[control]', "100 ms to 10 min"),
        ("[control]", '[window]\nstart = "2:00"\n[control]', "window.start"),
        ("[control]", '[rate]\nmost = "1 kbit/s"\n[control]', "1 Mbit/s and more"),
        ("[control]", "[rate]\nfast = 1\n[control]", "fast"),
    ],
)
def test_what_is_wrong_is_named(before, after, says):
    with pytest.raises(SettingsError, match=says):
        parse_settings(PLAIN.replace(before, after, 1), "agent.toml")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match="can't be read"):
        read_settings(str(tmp_path / "nowhere"))
