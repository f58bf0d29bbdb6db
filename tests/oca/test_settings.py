"""Settings: what is misspelt or can't be meant stops the start, and the message says where and what is allowed."""

import re
import types
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.errors import SettingsError
from oca.settings import (
    BindNetwork,
    Listen,
    Scheme,
    Settings,
    Tier,
    TlsVersion,
    pack_settings,
    parse_settings,
    read_settings,
    unpack_settings,
)
from wire.toml import BitsPerSecond, Bytes, Seconds, host_and_port, size_of

GOOD = """\
[appliance]
id = "oca-1"
[origin]
url = "s3://films/catalogue"
[[device]]
path = "/srv/oca/nvme0"
tier = "nvme"
capacity = "2 TiB"
"""
SECOND = """\
[[device]]
path = "/srv/oca/hdd0"
tier = "hdd"
capacity = "500 GB"
"""
DEMAND = "[demand]\nbucket = 's3://b/fleet'\n"
STEERING = "[steering]\nurls = ['https://steer-1.example:7443']\ntoken_file = '/t'\n"


def refusal_of(text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        parse_settings(text, "oca.toml")
    return str(refused.value)


def test_the_smallest_settings_are_enough():
    settings = parse_settings(GOOD, "oca.toml")
    assert settings.appliance.id == "oca-1"
    assert settings.device[0].tier is Tier.NVME
    assert settings.device[0].capacity == 2 * 1024**4
    assert settings.listen.workers >= 1
    assert settings.parents == ()


@pytest.mark.parametrize(
    ("more", "line", "key", "words"),
    [
        # Misspelt: what is allowed is told.
        ("[htp]\nmax_ranges = 3\n", 9, "htp", ["unknown key", "http", "fetch"]),
        ("[http]\nmax_range = 3\n", 10, "http.max_range", ["unknown key", "max_ranges"]),
        ("[http]\n\n# max_range\nmax_range = 3\n", 12, "http.max_range", ["unknown key"]),
        (SECOND.replace("tier", "teir"), 11, "device.teir", ["unknown key", "path, tier, capacity"]),
        ("[listen]\nworkers = 2\nport = 80\n", 11, "listen.port", ["http, https, fleet, control, workers"]),
        ("[origin.extra]\nx = 1\n", 3, "origin.extra", ["unknown key"]),
        # Wrong kinds and bounds.
        ("[listen]\nworkers = 0\n", 10, "listen.workers", [">= 1", "read 0"]),
        ("[listen]\nworkers = 257\n", 10, "listen.workers", ["<= 256", "read 257"]),
        ("[listen]\nworkers = '2'\n", 10, "listen.workers", ["int", "read '2'"]),
        ("[breaker]\nfailure_ratio = 1.0\n", 10, "breaker.failure_ratio", ["< 1.0"]),
        ("[fetch]\nattempts = 0\n", 10, "fetch.attempts", [">= 1"]),
        ("[cors]\nallow_origins = '*'\n", 10, "cors.allow_origins", ["array", "read '*'"]),
        ("[cors]\nallow_origins = ['*', 5]\n", 10, "cors.allow_origins", ["str", "read 5"]),
        (SECOND.replace('"hdd"', '"tape"'), 11, "device.tier", ["nvme, ssd, hdd", "read 'tape'"]),
        (SECOND.replace('capacity = "500 GB"\n', ""), 9, "device", ["capacity"]),
        # Units.
        (SECOND.replace("500 GB", "500 GX"), 12, "device.capacity", ['"2 TiB"', "read '500 GX'"]),
        (SECOND.replace("500 GB", "500gb"), 12, "device.capacity", ["read '500gb'"]),
        (SECOND.replace("500 GB", "-5 GB"), 12, "device.capacity", ["read '-5 GB'"]),
        (SECOND.replace("500 GB", "GB"), 12, "device.capacity", ["read 'GB'"]),
        (SECOND.replace("500 GB", "9" * 400 + " B"), 12, "device.capacity", ["1 EiB at most"]),
        (SECOND.replace('"500 GB"', "1.5"), 12, "device.capacity", ["read 1.5"]),
        (SECOND.replace('"500 GB"', "true"), 12, "device.capacity", ["read True"]),
        ("[http]\nidle_timeout = '5 parsecs'\n", 10, "http.idle_timeout", ['"250 ms"', "read '5 parsecs'"]),
        ("[http]\nidle_timeout = -1\n", 10, "http.idle_timeout", ["read -1"]),
        ("[http]\nidle_timeout = inf\n", 10, "http.idle_timeout", ["read inf"]),
        ("[http]\nidle_timeout = nan\n", 10, "http.idle_timeout", ["read nan"]),
        ("[http]\nmax_header_bytes = 1000\n", 10, "http.max_header_bytes", ["read 1000", "1 KiB to 64 KiB"]),
        ("[http]\nmax_header_bytes = '1 MiB'\n", 10, "http.max_header_bytes", ["read 1048576", "1 KiB to 64 KiB"]),
        # Access.
        ("[access]\nrequired = true\n", 9, "access.keys", ["a JWKS file, or a [steering] that has keys, is needed"]),
        ("[access]\nkeys = 'keys.json'\n", 10, "access.keys", ["read 'keys.json'", "an absolute path"]),
        ("[access]\npublic_paths = ['posters']\n", 10, "access.public_paths", ["read 'posters'"]),
        ("[access]\npublic_paths = ['/x/../y']\n", 10, "access.public_paths", ["read '/x/../y'"]),
        ("[access]\npublic_paths = ['/']\n", 10, "access.public_paths", ["but not all of them"]),
        ("[access]\ntrusted_networks = ['10.0.0.1/8']\n", 10, "access.trusted_networks", ["host bits"]),
        ("[access]\nscheme = 'ftp'\n", 10, "access.scheme", ["http, https", "read 'ftp'"]),
        ("[access]\nbind_network = 'no'\n", 10, "access.bind_network", ["strict, same_family, off", "read 'no'"]),
        ("[access]\nmax_token_bytes = 100\n", 10, "access.max_token_bytes", ["read 100"]),
        ("[access]\nmax_token_bytes = '17 KiB'\n", 10, "access.max_token_bytes", ["http.max_header_bytes"]),
        # Addresses.
        ("[listen]\nhttp = 'localhost'\n", 10, "listen.http", ["is not host:port", "[::]:8080"]),
        ("[listen]\ncontrol = ':9145'\n", 10, "listen.control", ["is not host:port"]),
        ("[listen]\nhttp = 'h:99999'\n", 10, "listen.http", ["0-65535"]),
        ("[listen]\nhttp = '::1:80'\n", 10, "listen.http", ["allowed"]),
        ("[listen]\nhttp = '[::1:80'\n", 10, "listen.http", ["allowed"]),
        ("[listen]\nhttp = 'h:80/films'\n", 10, "listen.http", ["is not host:port"]),
        ("[listen]\nhttp = 'h:80?x'\n", 10, "listen.http", ["is not host:port"]),
        ("[listen]\nhttp = 'me@h:80'\n", 10, "listen.http", ["is not host:port"]),
        ("[[parents]]\nurl = 'ftp://x'\n", 10, "parents.url", ["http(s)://host:port", "read 'ftp://x'"]),
        ("[[parents]]\nurl = 'http://a'\n[[parents]]\nurl = 'http://[x'\n", 12, "parents.url", ["read 'http://[x'"]),
        ("[[parents]]\nurl = 'http://a:port'\n", 10, "parents.url", ["read 'http://a:port'"]),
        ("[routes]\nkernel_table = 254\n", 10, "routes.kernel_table", ["read 254", "any but 253, 254 and 255"]),
        ("[routes]\nkernel_table = 0\n", 10, "routes.kernel_table", ["read 0"]),
        ("[routes]\nexabgp_feed = 'feed'\n", 10, "routes.exabgp_feed", ["an absolute path"]),
        ("[routes]\nkernel_table = 9\nexabgp_feed = '/run/x'\n", 11, "routes.exabgp_feed", ["kernel_table is set too"]),
        ("[routes]\npoll = '10 ms'\n", 10, "routes.poll", ["1 s to 1 h"]),
        ("[demand]\nbucket = 'http://x'\n", 10, "demand.bucket", ["s3://bucket/prefix", "read 'http://x'"]),
        ("[demand]\nbucket = 's3:///x'\n", 10, "demand.bucket", ["s3://bucket/prefix", "read 's3:///x'"]),
        ("[demand]\njitter = 5\n", 9, "demand", ["bucket"]),
        (DEMAND + "endpoint_url = 's3.example'\n", 11, "demand.endpoint_url", ["http(s)://host:port"]),
        (DEMAND + "checkpoint = '100 ms'\n", 11, "demand.checkpoint", ["read 0.1 s", "1 s to 1 h"]),
        (DEMAND + "spool = '1 MiB'\n", 11, "demand.spool", ["read 1048576", "64 MiB and more"]),
        (DEMAND + "jitter = '1 h'\n", 11, "demand.jitter", ["read 3600 s", "50 min"]),
        ("[routes]\nmost = 200001\n", 10, "routes.most", ["read 200001"]),
        # Devices that overlap.
        (SECOND.replace("/srv/oca/hdd0", "/srv/oca/nvme0"), 10, "device.path", ["overlap"]),
        (SECOND.replace("/srv/oca/hdd0", "/srv/oca/nvme0/in"), 10, "device.path", ["overlap"]),
        (SECOND.replace("/srv/oca/hdd0", "/srv/oca"), 10, "device.path", ["overlap"]),
        (SECOND.replace("/srv/oca/hdd0", "/"), 10, "device.path", ["overlap"]),
        (SECOND.replace("/srv/oca/hdd0", "/srv/x/../oca/nvme0/"), 10, "device.path", ["overlap"]),
        (SECOND.replace("/srv/oca/hdd0", "//srv/oca/nvme0"), 10, "device.path", ["overlap"]),
        (SECOND.replace("/srv/oca/hdd0", "srv/oca/hdd0"), 10, "device.path", ["an absolute path"]),
        (SECOND.replace("500 GB", "63 MiB"), 12, "device.capacity", ["64 MiB and more"]),
        # Steering.
        ("[steering]\ntoken_file = '/t'\n", 9, "steering", ["`urls`"]),
        ("[steering]\nurls = []\n", 10, "steering.urls", ["at least one"]),
        ("[steering]\nurls = ['steer:1']\n", 10, "steering.urls", ["http(s)://host:port", "read 'steer:1'"]),
        ("[steering]\nurls = ['http://s/?x=']\n", 10, "steering.urls", ["read 'http://s/?x='"]),
        ("[steering]\nurls = ['http://s', 'http://s']\n", 10, "steering.urls", ["each once"]),
        (STEERING.replace("token_file = '/t'", ""), 9, "steering.token_file", ["client_cert and client_key"]),
        (STEERING + "client_key = '/k'\n", 9, "steering.client_cert", ["go together"]),
        (STEERING + "ca_file = 'ca.pem'\n", 12, "steering.ca_file", ["absolute path", "read 'ca.pem'"]),
        (STEERING + "interval = '500 ms'\n", 12, "steering.interval", ["1 s to 60 s", "read 0.5 s"]),
        (STEERING + "interval = 61\n", 12, "steering.interval", ["1 s to 60 s", "read 61 s"]),
        (STEERING + "holdings_interval = 0\n", 12, "steering.holdings_interval", ["1 s and more"]),
        (STEERING + "holding_share = 1.1\n", 12, "steering.holding_share", ["<= 1.0"]),
        (STEERING + "link_speed = '10 Gbps'\n", 12, "steering.link_speed", ['"100 Gbit/s"']),
        (STEERING + "link_speed = 0\n", 12, "steering.link_speed", ["leave it out"]),
    ],
)
def test_a_mistake_is_told_with_its_line_its_key_and_what_is_allowed(more, line, key, words):
    told = refusal_of(GOOD + more)
    assert told.startswith(f"oca.toml: line {line}: {key}: ")
    assert all(word in told for word in words)


@pytest.mark.parametrize(
    ("good", "bad", "begins", "words"),
    [
        ('id = "oca-1"\n', "", "oca.toml: line 1: appliance: ", ["`id`"]),
        ('[appliance]\nid = "oca-1"\n', "", "oca.toml: ", ["`appliance`"]),
        ('[origin]\nurl = "s3://films/catalogue"\n', "", "oca.toml: ", ["`origin`"]),
        ("[[device]]", "[device]", "oca.toml: line 5: device: ", ["array"]),
        (GOOD[GOOD.index("[[device]]") :], "", "oca.toml: ", ["`device`"]),
        ("oca-1", "1-oca", "oca.toml: line 2: appliance.id: ", ["read '1-oca'"]),
        ("oca-1", "oca 1", "oca.toml: line 2: appliance.id: ", ["read 'oca 1'"]),
        # It stands in header lines.
        ("oca-1", "oca-1\\n", "oca.toml: line 2: appliance.id: ", ["read 'oca-1\\n'"]),
        ("oca-1", "oca\\r\\nX: y", "oca.toml: line 2: appliance.id: ", []),
        ("oca-1", "o" * 65, "oca.toml: line 2: appliance.id: ", []),
        ('"oca-1"\n', '"oca-1"\nstate_dir = "state"\n', "oca.toml: line 3: appliance.state_dir: ", ["absolute"]),
        ("s3://films/catalogue", "films", "oca.toml: line 4: origin.url: ", ["s3://bucket/prefix", "read 'films'"]),
        ("s3://films/catalogue", "s3:///x", "oca.toml: line 4: origin.url: ", []),
        ("s3://films/catalogue", "http://[::1", "oca.toml: line 4: origin.url: ", []),
        ("s3://films/catalogue", "file:///srv", "oca.toml: line 4: origin.url: ", []),
        ("[origin]", "[origin", "oca.toml: ", ["line 3"]),
        ("[origin]", "[appliance]", "oca.toml: ", ["line 3"]),
    ],
)
def test_a_mistake_in_what_every_file_needs_is_told(good, bad, begins, words):
    told = refusal_of(GOOD.replace(good, bad))
    assert told.startswith(begins)
    assert all(word in told for word in words)


def test_an_empty_list_of_devices_is_no_cache():
    told = refusal_of("device = []\n" + GOOD[: GOOD.index("[[device]]")])
    assert told.startswith("oca.toml: line 1: device: at least one [[device]] is needed")


@pytest.mark.parametrize("text", ["", "\0", "=", "[appliance]\nid = 5", "appliance = 1", "x" * 10_000, "[[[a]]]"])
def test_any_rubbish_is_refused_in_words(text):
    assert refusal_of(text).startswith("oca.toml: ")


@given(st.text(max_size=100))
def test_rubbish_behind_good_settings_never_raises_anything_else(rubbish):
    try:
        parse_settings(GOOD + rubbish, "oca.toml")
    except SettingsError as error:
        told = str(error)
    else:
        told = "oca.toml: "
    assert told.startswith("oca.toml: ")


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml: can't be read: No such file"):
        read_settings(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(SettingsError, match=r"latin\.toml: is not UTF-8"):
        read_settings(str(tmp_path / "latin.toml"))
    (tmp_path / "good.toml").write_text(GOOD)
    assert read_settings(str(tmp_path / "good.toml")) == parse_settings(GOOD, "")


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("'1 B'", 1),
        ("'64 KiB'", 65536),
        ("'64KiB'", 65536),
        ("' 1.5 MiB '", 3 * 2**19),
        ("'1 kB'", None),
        ("'1 KB'", 1000),
        ("'2 TB'", 2 * 10**12),
        ("'1 PiB'", 2**50),
        ("'1 EiB'", None),
        ("'0x10 B'", None),
        ("'1e3 B'", None),
        ("'1_000 B'", None),
        ("'1 B B'", None),
        ("''", None),
    ],
)
def test_sizes(written, size):
    text = f"{GOOD}[http]\nmin_send_rate = {written}\n"
    if size is None:
        assert "http.min_send_rate" in refusal_of(text)
    else:
        found = parse_settings(text, "").http.min_send_rate
        assert (found, type(found)) == (size, Bytes)


@pytest.mark.parametrize(
    ("written", "span"),
    [
        ("0", 0),
        ("75", 75),
        ("0.25", 0.25),
        ("'75 s'", 75),
        ("'250 ms'", 0.25),
        ("'2 min'", 120),
        ("'1.5h'", 5400),
        ("'7 d'", 604800),
        ("'2 m'", None),
        ("'1 week'", None),
        ("'99999999999 d'", None),
    ],
)
def test_durations(written, span):
    text = f"{GOOD}[http]\nidle_timeout = {written}\n"
    if span is None:
        assert "http.idle_timeout" in refusal_of(text)
    else:
        found = parse_settings(text, "").http.idle_timeout
        assert (found, type(found)) == (pytest.approx(span), Seconds)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("[::]:8080", ("::", 8080)),
        ("oca.example:0", ("oca.example", 0)),
    ],
)
def test_addresses(address, parts):
    assert host_and_port(address) == parts


# --- To the children and back -----------------------------------------------------------------------------------------


def another(kind):
    """A value of this type that is nobody's default."""
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        return another(typing.get_args(kind)[0])
    if typing.get_origin(kind) is tuple:
        return (another(typing.get_args(kind)[0]), another(typing.get_args(kind)[0]))
    if issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{field.name: another(hints[field.name]) for field in msgspec.structs.fields(kind)})
    return {
        BitsPerSecond: BitsPerSecond(40_000_000_000),
        Bytes: Bytes(123_456_789_012),
        Seconds: Seconds(17.25),
        Tier: Tier.HDD,
        Scheme: Scheme.HTTPS,
        BindNetwork: BindNetwork.SAME_FAMILY,
        TlsVersion: TlsVersion.V1_3,
        bool: True,
        str: "other",
        int: 9,
        float: 0.37,
    }[kind]


def flattened(value):
    if isinstance(value, msgspec.Struct):
        return [leaf for name in value.__struct_fields__ for leaf in flattened(getattr(value, name))]
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in flattened(part)]
    return [(type(value), value)]


@pytest.mark.parametrize("settings", [parse_settings(GOOD + SECOND, ""), another(Settings)])
def test_every_field_survives_the_way_to_a_child(settings):
    unpacked = unpack_settings(pack_settings(settings))
    assert unpacked == settings
    assert flattened(unpacked) == flattened(settings)


@pytest.mark.parametrize("written", ["/srv/oca/nvme0/", "//srv/oca/nvme0", "/srv/./oca//hdd/../nvme0"])
def test_a_folder_has_one_name_however_it_is_written(written):
    settings = parse_settings(GOOD.replace("/srv/oca/nvme0", written), "oca.toml")
    assert settings.device[0].path == "/srv/oca/nvme0"
    assert unpack_settings(pack_settings(settings)) == settings


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("64 MiB", 64 * 1024**2), ("1.5TB", 1_500_000_000_000)])
def test_a_size_on_a_command_line_is_written_as_in_the_settings(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 tb", "2 EiB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="Expected a size"):
        size_of(text)


# --- TLS --------------------------------------------------------------------------------------------------------------

CERTIFICATE = '[[certificate]]\ncert = "/etc/oca/tls/films.pem"\nkey = "/etc/oca/tls/films.key"\n'


def listening(text):
    return parse_settings(f"{GOOD_WITHOUT_LISTEN}\n[listen]\n{text}", "oca.toml").listen


PORT = '[listen]\nhttps = "[::]:443"\n'

GOOD_WITHOUT_LISTEN = """
[appliance]
id = "oca-1"
[origin]
url = "s3://films"
[[certificate]]
cert = "/etc/oca/tls/films.pem"
key = "/etc/oca/tls/films.key"
[[device]]
path = "/srv/oca/nvme0"
tier = "nvme"
capacity = "1 TiB"
"""


def test_plain_http_is_served_unless_tls_is():
    assert Listen().ports == {"http": "0.0.0.0:8080"}
    assert listening('https = "[::]:443"').ports == {"https": "[::]:443"}
    both = listening('https = "[::]:443"\nhttp = "[::]:80"\nfleet = "[::]:8443"')
    assert both.ports == {"http": "[::]:80", "https": "[::]:443", "fleet": "[::]:8443"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD_WITHOUT_LISTEN, "certificate: is for listen.https, which is not given"),
        (GOOD_WITHOUT_LISTEN + '[listen]\nhttps = "443"\n', "listen.https"),
        (GOOD_WITHOUT_LISTEN.replace("/etc/oca/tls/films.key", "films.key") + PORT, "allowed: an absolute path"),
        (GOOD_WITHOUT_LISTEN.replace(CERTIFICATE, "") + PORT, "needs a certificate"),
    ],
    ids=["no port", "no address", "no path", "no certificate"],
)
def test_tls_that_can_not_be_is_refused(text, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        parse_settings(text, "oca.toml")


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ('minimum = "1.1"', "minimum"),
        ('ticket_rotation = "10 s"', "allowed: 1 min to 7 d, or 0 for no tickets"),
        ('kernel = "yes"', "unknown key"),
    ],
    ids=["too old", "too often", "unknown"],
)
def test_of_tls_only_what_is_known_may_be_said(tls, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        parse_settings(f'{GOOD_WITHOUT_LISTEN}\n[listen]\nhttps = "[::]:443"\n[tls]\n{tls}\n', "oca.toml")
