"""The players that tests watch with."""

import hashlib

import pytest

from tests.doubles.viewer import PLAYERS


@pytest.mark.parametrize("name", ["shaka-player.dash-es2021.js"])
def test_a_vendored_player_is_what_its_notice_says(name):
    digest = hashlib.sha256((PLAYERS / name).read_bytes()).hexdigest()
    assert f"| {name} |" in (PLAYERS / "THIRD-PARTY.md").read_text()
    assert digest in (PLAYERS / "THIRD-PARTY.md").read_text()
