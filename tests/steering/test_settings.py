"""What the settings file of steering may say of pressing play."""

import pytest

from steering.errors import SettingsError
from steering.settings import parse_settings

BASE = """
[steering]
id = "steer-1"
[listen]
base_url = "https://steer.example"
[content]
catalogue = "/srv/films"
[playback]
keys = "https://login.example/jwks.json"
issuer = "https://login.example"
audience = "films"
"""


def test_whose_viewers_are_let_in_is_said_by_the_check():
    playback = parse_settings(BASE, "steering.toml").playback
    assert playback is not None
    assert (playback.scope, playback.leeway, playback.refresh) == (None, 60, 300)


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ('keys = "https://login.example/jwks.json"', 'keys = "jwks.json"', "allowed: http(s)://host/path or /a/path"),
        ('keys = "https://login.example/jwks.json"', 'keys = "s3://bucket/jwks.json"', "allowed: http(s)://"),
        ('catalogue = "/srv/films"', "", "content.catalogue says what can be played"),
        ('audience = "films"', "", "audience"),
        ('audience = "films"', 'audience = ""', "audience"),
        ('audience = "films"', 'audience = "films"\nrefresh = "1 s"', "refresh from 10 s"),
        ('audience = "films"', 'audience = "films"\nburst = 0.5', "burst from 1"),
        ('audience = "films"', 'audience = "films"\nalgorithms = ["none"]', "algorithms"),
    ],
)
def test_what_can_not_be_is_refused_with_what_is_allowed(written, instead, says):
    assert written in BASE
    with pytest.raises(SettingsError, match=r"steering\.toml") as refused:
        parse_settings(BASE.replace(written, instead), "steering.toml")
    assert says in str(refused.value)
