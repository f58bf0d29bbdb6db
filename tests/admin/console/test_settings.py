"""The console's settings: what can't be is refused, with file, line and what is allowed."""

import json

import pytest

from admin.console.settings import read_settings
from admin.errors import UsageError
from tests.doubles.console import password_hash

ACCOUNT = f'[[account]]\nname = "ada"\nrole = "admin"\npassword = "{password_hash()}"\n'
OIDC = '[oidc]\nissuer = "https://id.example"\nclient_id = "console"\n'
LEAST = 'state_dir = "/var/lib/oca-console"\nsteering = "http://steering.example:9146"\n'


def read(tmp_path, text):
    path = tmp_path / "console.toml"
    path.write_text(text)
    return read_settings(path)


def test_a_few_lines_are_enough(tmp_path):
    settings = read(tmp_path, LEAST + ACCOUNT)
    assert (settings.listen, settings.origin) == ("127.0.0.1:9180", "http://127.0.0.1:9180")
    assert (settings.sessions.idle, settings.sessions.longest) == (8 * 3600, 24 * 3600)


def test_browsers_come_by_the_public_url(tmp_path):
    assert read(tmp_path, LEAST + 'public_url = "https://noc.example/"\n' + ACCOUNT).origin == "https://noc.example"
    secured = read(tmp_path, LEAST + ACCOUNT + '[tls]\ncert = "/c"\nkey = "/k"\n')
    assert secured.origin == "https://127.0.0.1:9180"


def test_single_sign_on_does_without_accounts(tmp_path):
    settings = read(tmp_path, LEAST + OIDC + 'roles = { admin = ["leads"], viewer = ["noc", "isp"] }\n')
    assert settings.oidc.roles == {"admin": ("leads",), "viewer": ("noc", "isp")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LEAST, "nobody could log in"),
        (LEAST + OIDC, "nobody would have a role"),
        (LEAST + OIDC + 'roles = { king = ["x"] }\n', "king"),
        (LEAST + ACCOUNT + ACCOUNT, "'ada' stands twice"),
        (LEAST + ACCOUNT.replace("$argon2id$", "$argon2i$"), "is no hash; oca-admin password makes one"),
        (LEAST + ACCOUNT.replace('"admin"', '"root"'), "root"),
        (LEAST.replace('"/var', '"var') + ACCOUNT, "allowed: an absolute path"),
        (LEAST.replace("http://", "") + ACCOUNT, "allowed: http(s)://host:port"),
        (LEAST + 'public_url = "https://noc.example/console"\n' + ACCOUNT, "allowed: no path"),
        (LEAST + 'listen = "9180"\n' + ACCOUNT, "allowed: host:port"),
        (LEAST + 'proxies = ["10.0.0.0/8", "here"]\n' + ACCOUNT, "'here' is not a network"),
        (LEAST + 'color = "red"\n' + ACCOUNT, "color"),
        (LEAST + ACCOUNT + '[fill]\nbucket = "http://x"\n', "allowed: s3://bucket"),
        (LEAST + ACCOUNT + '[prometheus]\nurl = "prom:9090"\n', "allowed: http(s)://host:port"),
        ("state_dir = ", "console.toml"),
    ],
)
def test_what_can_not_be_is_refused_by_name(tmp_path, text, says):
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)
    assert says in str(refused.value)
    assert "console.toml" in str(refused.value)


def test_a_hash_is_not_shown_where_it_is_refused(tmp_path):
    with pytest.raises(UsageError) as refused:
        read(tmp_path, LEAST + ACCOUNT.replace(json.dumps(password_hash()), '"my secret password"'))
    assert "my secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: can't be read"):
        read_settings(tmp_path / "none.toml")
