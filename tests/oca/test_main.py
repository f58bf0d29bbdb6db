"""The `oca` command: what it says and the exit code with which it says it."""

import sys
from dataclasses import dataclass

import pytest

from oca.__main__ import main
from tests.doubles.keys import new_key
from wire.token import key_set

GOOD = """\
[appliance]
id = "oca-1"
state_dir = "{folder}/state"
[listen]
workers = 2
[origin]
url = "s3://films/catalogue"
[[device]]
path = "{folder}/disk"
tier = "nvme"
capacity = "1 GiB"
"""


@dataclass
class Result:
    exit_code: int
    output: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["oca", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Result(ended.value.code, said.out, said.err)

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["serve", "--help"],
        ["check", "--help"],
        ["device", "--help"],
        *(["device", verb, "--help"] for verb in ("list", "add", "drain", "serve", "remove")),
        ["store", "verify", "--help"],
        ["index", "rebuild", "--help"],
    ],
)
def test_help_tells_the_exit_codes(run, words):
    result = run(*words)
    assert result.exit_code == 0
    told = " ".join(result.output.split())
    assert "0 ended as told" in told
    assert "1 could not start" in told
    assert "2 the command line or the settings are wrong" in told


def test_the_help_of_device_tells_what_the_standings_mean(run):
    told = run("device", "--help").output
    assert all(standing in told for standing in ("online ", "failing ", "offline "))


def test_serve_tells_what_signals_do(run):
    told = run("serve", "--help").output
    assert all(signal in told for signal in ("SIGTERM", "SIGINT", "SIGHUP"))


@pytest.mark.parametrize(
    "words", [[], ["serve"], ["check"], ["check", "--config"], ["chek", "--config", "x"], ["check", "--confg", "x"]]
)
def test_a_wrong_command_line_ends_with_2(run, words):
    assert run(*words).exit_code == 2


def test_good_settings_are_checked_without_touching_anything(run, tmp_path):
    (tmp_path / "oca.toml").write_text(GOOD.format(folder=tmp_path))
    result = run("check", "--config", str(tmp_path / "oca.toml"))
    assert result.exit_code == 0
    assert all(word in result.output for word in ("oca-1", "2 workers", "1 device", "s3://films/catalogue"))
    assert [path.name for path in tmp_path.iterdir()] == ["oca.toml"]


def test_keys_that_tokens_are_verified_with_are_checked_and_named(run, tmp_path):
    keys = tmp_path / "keys.json"
    access = f'[access]\nrequired = true\nkeys = "{keys}"\n'
    (tmp_path / "oca.toml").write_text(GOOD.format(folder=tmp_path) + access)
    result = run("check", "--config", str(tmp_path / "oca.toml"))
    assert (result.exit_code, f"{keys}: can't be read" in result.stderr) == (1, True)
    keys.write_bytes(key_set([new_key("k1").public()]))
    result = run("check", "--config", str(tmp_path / "oca.toml"))
    # The terminal breaks lines where it likes.
    assert (result.exit_code, "verified with k1" in " ".join(result.output.split())) == (0, True)


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "can't be read"),
        ("", "`appliance`"),
        (GOOD.replace("nvme", "tape"), "line 10: device.tier: not one of the allowed values"),
    ],
)
def test_wrong_settings_end_with_2_and_one_line_for_the_operator(run, tmp_path, command, text, told):
    config = tmp_path / "oca.toml"
    if text is not None:
        config.write_text(text.format(folder=tmp_path))
    result = run(command, "--config", str(config))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"oca: {config}: ")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_and_serve_refuse_a_token_that_everybody_can_read(run, tmp_path):
    config, token = tmp_path / "oca.toml", tmp_path / "token"
    token.write_text("abc")
    token.chmod(0o644)
    section = f"[steering]\nurls = ['http://127.0.0.1:9']\ntoken_file = '{token}'\n"
    config.write_text(GOOD.format(folder=tmp_path) + section)
    for verb in ("check", "serve"):
        result = run(verb, "--config", str(config))
        assert result.exit_code == 2
        assert "everybody on this machine can read it" in result.stderr
    # Whoever only looks at devices need not be allowed to read it.
    assert "token" not in run("device", "list", "--config", str(config)).stderr
