"""Films over TLS: the same bytes, whoever renews certificates meanwhile; and a port for appliances only."""

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until
from tests.doubles.authority import Authority
from tests.doubles.keys import new_key
from tests.doubles.wire import Cut, Wire
from tests.scenarios.test_access import write_keys
from tests.scenarios.test_lifecycle import HELD_BACK, SIZE, Load
from wire.identity import AUTHORITY_FILE, FOLDER, IDENTITY_FILE, REVOKED_FILE, name_of


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def started(appliance, pairs, **settings):
    listen = {**settings.pop("listen", {}), "https": f"127.0.0.1:{appliance.tls_port}"}
    certificates = [{"cert": pair, "key": pair} for pair in pairs]
    return appliance.start(listen=listen, certificate=certificates, **settings)


@pytest.fixture(scope="module")
def secure(module_appliance, origin, authority):
    one = module_appliance(origin.url)
    one.tls = authority.trusted()
    names = [["films.example", "*.films.example"], ["other.example"]]
    pairs = [authority.sign(hosts[0], f"{hosts[0]}.pem", hosts=hosts) for hosts in names]
    return started(one, pairs)


@pytest.fixture
def films(origin, path):
    return {f"{path}/{size}": origin.put(f"{path}/{size}", size) for size in (0, 100, 70_000, BLOCK + 10, 3 * BLOCK)}


# --- Bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_the_same_bytes_come_with_and_without_tls(secure, films, temperature):
    for path, content in films.items():
        if temperature == "warm":
            secure.get(path)
            secure.wait_stored(path)
        assert secure.get(path).body == content
        with Wire(secure.port) as plain:
            assert plain.get(path).body == content
        assert secure.span(path, 10, 90).body == content[10:90] if content else True


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_speaks_both_versions(secure, authority, films, tmp_path, version):
    for path, content in films.items():
        command = ["curl", "-sSf", f"--tlsv{version}", "--tls-max", version, "--cacert", str(authority.path)]
        subprocess.run(
            [*command, "-o", str(tmp_path / "film"), f"https://127.0.0.1:{secure.tls_port}{path}"],
            check=True,
            timeout=PATIENCE,
        )
        assert (tmp_path / "film").read_bytes() == content


def test_older_versions_and_weak_ciphers_are_refused(secure):
    for words in (
        "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1_2 -cipher AES128-SHA256",
        "-tls1_2 -cipher ECDHE+SHA256",
    ):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.tls_port}", *words.split()]
        told = subprocess.run(command, check=False, input=b"", capture_output=True, timeout=PATIENCE)
        assert told.returncode != 0, words


def test_a_slow_reader_gets_every_byte(secure, origin, path):
    content = origin.put(path, 3 * BLOCK)
    with secure.wire(receive_buffer=4096) as wire:
        wire.ask(path)
        heard = wire.head()
        assert heard.status == 200
        got = b"".join(wire.read(n) for n in [1, 7, 100_000, 5])
        got += wire.read(len(content) - len(got))
        assert got == content
        # And the connection is good for another.
        assert wire.get(path).body == content


def test_who_is_cut_off_can_tell_it_from_the_end(make_appliance, authority, origin, path):
    one = make_appliance()
    one.tls = authority.trusted()
    started(
        one, [authority.sign("films.example", "cut.pem")], fetch={"stall_timeout": "300 ms", "total_deadline": "1 s"}
    )
    origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    with one.wire() as wire:
        wire.ask(path)
        assert wire.head().status == 200
        gate.wait_reached()
        with pytest.raises(Cut):
            wire.read(SIZE)
    origin.open_gates(path)


# --- Names and certificates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("films.example", "films.example"),
        ("lis-1.films.example", "films.example"),
        ("OTHER.example", "other.example"),
        ("a.b.films.example", "films.example"),
        ("unknown.example", "films.example"),
    ],
    ids=["exact", "wildcard", "other, in capitals", "too deep for the wildcard", "unknown"],
)
def test_the_certificate_is_the_one_of_the_name_that_is_asked_for(secure, authority, asked, shown):
    context = authority.trusted()
    context.check_hostname = False
    with Wire(secure.tls_port, tls=context, name=asked) as wire:
        subject = dict(pair[0] for pair in wire.tls.getpeercert()["subject"])
    assert subject["commonName"] == shown


def test_a_new_certificate_is_taken_up_and_a_broken_one_is_not(make_appliance, authority, origin, films, path):
    one = make_appliance()
    one.tls = authority.trusted()
    pair = authority.sign("films.example", "renewed.pem")
    started(one, [pair], listen={"workers": 1})

    def shown():
        with one.wire() as wire:
            return wire.tls.getpeercert()["serialNumber"]

    first = shown()
    slow = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    with one.wire() as long:
        long.ask(path)
        assert long.head().status == 200
        gate.wait_reached()
        authority.sign("films.example", "renewed.pem")
        wait_until(lambda: shown() != first, "the new certificate is shown")
        second = shown()
        Path(pair).write_text("no certificate")
        wait_until(lambda: one.metric("oca_certificate_faults_total") >= 1, "the broken one was seen")
        assert shown() == second
        assert "the pair that was there before is used" in one.log.read_text()
        origin.open_gates(path)
        assert long.read(SIZE) == slow


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda pair: Path(pair).chmod(0o644), "everybody on this machine can read it"),
        (lambda pair: Path(pair).unlink(), "No such file"),
        (lambda pair: Path(pair).write_text(""), "certificate.cert"),
    ],
    ids=["readable by all", "not there", "empty"],
)
def test_a_certificate_that_can_not_be_used_stops_the_start(make_appliance, authority, damage, words):
    one = make_appliance()
    pair = authority.sign("films.example", "bad.pem")
    damage(pair)
    one.write_settings(listen={"https": f"127.0.0.1:{one.tls_port}"}, certificate=[{"cert": pair, "key": pair}])
    one.launch()
    assert one.process.wait(PATIENCE) == 2
    one.process = None
    assert words in one.tail()


# --- Handshakes -------------------------------------------------------------------------------------------------------


def test_a_ticket_of_one_worker_is_honoured_by_the_other(secure):
    context = secure.tls
    wait_until(lambda: secure.metric("oca_tls_handshakes_total", result="full") >= 0, "it answers")
    workers, resumed = set(), 0
    session = None
    for _ in range(24):
        with Wire(secure.tls_port, tls=context, session=session) as wire:
            wire.get("/none")
            resumed += wire.tls.session_reused
            session = wire.tls.session
            workers.add(_worker_of(secure, wire))
    assert len(workers) == 2
    assert resumed == 23


def _worker_of(appliance, wire):
    """Which worker has the other end of a connection."""
    here, there = f":{appliance.tls_port:04X}", f":{wire.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = {row[9] for row in rows if row[1].endswith(here) and row[2].endswith(there)}
    for pid in appliance.worker_pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(fd) == f"socket:[{inode}]":
                    return pid
    return None


def test_a_ticket_outlives_a_reload(make_appliance, authority):
    one = make_appliance()
    one.tls = authority.trusted()
    started(one, [authority.sign("films.example", "reload.pem")])
    with one.wire() as wire:
        wire.get("/none")
        session = wire.tls.session
    old = set(one.worker_pids)
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not old & set(one.worker_pids), "the old workers have ended")
    with Wire(one.tls_port, tls=one.tls, session=session) as wire:
        assert wire.tls.session_reused


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 600,
        b"\x00" * 20_000,
    ],
    ids=["plain HTTP", "half a hello that is wrong", "zeros"],
)
def test_what_is_no_tls_ends_the_connection_and_nothing_else(secure, films, said):
    before = secure.metric("oca_tls_handshakes_total", result="failed")
    with Wire(secure.tls_port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(said)
        assert b"HTTP/1.1" not in wire.rest()
    assert secure.metric("oca_tls_handshakes_total", result="failed") == before + 1
    path = max(films)
    assert secure.get(path).body == films[path]


def test_who_says_nothing_is_let_go(make_appliance, authority):
    one = make_appliance()
    one.tls = authority.trusted()
    started(one, [authority.sign("films.example", "silent.pem")], http={"header_timeout": "300 ms"})
    with Wire(one.tls_port) as silent:
        silent.wait_closed()
    with Wire(one.tls_port) as slow:
        slow.send(b"\x16\x03\x01")
        slow.wait_closed()
    assert one.metric("oca_tls_handshakes_total", result="timeout") == 2


def test_many_handshakes_at_once_all_succeed_while_films_are_sent(secure, films):
    socks = [socket.create_connection(("127.0.0.1", secure.tls_port), PATIENCE) for _ in range(200)]
    with Load(secure, films, viewers=3) as load:
        load.wait_for(10)
        hellos = [
            secure.tls.wrap_socket(sock, server_hostname="127.0.0.1", do_handshake_on_connect=False) for sock in socks
        ]
        for sock in hellos:
            sock.setblocking(False)
            with contextlib.suppress(ssl.SSLWantReadError):
                sock.do_handshake()
        for sock in hellos:
            sock.settimeout(PATIENCE)
            sock.do_handshake()
            assert sock.version() == "TLSv1.3"
            sock.close()
        load.wait_for(10)
    assert load.faults == []


def test_a_reload_cuts_no_connection_over_tls(make_appliance, authority, origin, films, path):
    one = make_appliance()
    one.tls = authority.trusted()
    started(one, [authority.sign("films.example", "load.pem")])
    old = set(one.worker_pids)
    slow = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    with one.wire() as long, Load(one, films) as load:
        long.ask(path)
        assert long.head().status == 200
        gate.wait_reached()
        load.wait_for(30)
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "workers replaced" in one.log.read_text(), "it is reloaded")
        load.wait_for(30)
        origin.open_gates(path)
        assert long.read(SIZE) == slow
    assert load.faults == []
    wait_until(lambda: not old & set(one.worker_pids), "the old workers have ended")


def test_https_alone_serves_nothing_in_the_clear(make_appliance, authority, films):
    one = make_appliance()
    one.tls = authority.trusted()
    pair = authority.sign("films.example", "alone.pem")
    one.write_settings(listen={"https": f"127.0.0.1:{one.tls_port}"}, certificate=[{"cert": pair, "key": pair}])
    text = one.config.read_text()
    one.config.write_text(text.replace(f'http = "127.0.0.1:{one.port}"\n', ""))
    one.start()
    path = max(films)
    assert one.get(path).body == films[path]
    with pytest.raises(ConnectionRefusedError):
        Wire(one.port)


# --- The fleet's port -------------------------------------------------------------------------------------------------


class Enrolled:
    """An appliance with an identity, and what others need to come to it."""

    def __init__(self, one, authority):
        self.one = one
        self.authority = authority
        self.folder = one.state_dir / FOLDER
        self.folder.mkdir(parents=True)
        self._put(AUTHORITY_FILE, authority.path)

    def _put(self, name, source):
        new = self.folder / "new"
        shutil.copy(source, new)
        new.replace(self.folder / name)

    def enrol(self):
        name = self.one.name
        self._put(IDENTITY_FILE, self.authority.sign(name, "identity.pem", uri=name_of(name)))

    def revoke(self, **moments):
        new = self.folder / "new"
        new.write_text(json.dumps(moments))
        new.replace(self.folder / REVOKED_FILE)

    def context(self, name, *, by=None, uri=None, begins=None):
        """Of somebody who comes as `name`; `by`: another authority's certificate."""
        context = self.authority.trusted()
        by = by or self.authority
        uri = name_of(name) if uri is None else uri
        context.load_cert_chain(by.sign(name, f"{name}.pem", uri=uri, begins=begins))
        return context

    def get(self, path, context):
        with Wire(self.one.fleet_port, tls=context) as wire:
            return wire.get(path)


@pytest.fixture(scope="module")
def fleet(module_appliance, origin, tmp_path_factory):
    one = module_appliance(origin.url)
    enrolled = Enrolled(one, Authority(tmp_path_factory.mktemp("fleet")))
    one.start(
        listen={"fleet": f"127.0.0.1:{one.fleet_port}"},
        access={"required": True, "keys": str(_no_keys(tmp_path_factory.mktemp("keys")))},
    )
    with pytest.raises((ssl.SSLError, ConnectionError)):
        enrolled.get("/none", enrolled.context("lis-1"))
    enrolled.enrol()

    let_in = "lets appliances in by their certificates"
    wait_until(lambda: one.log.read_text().count(let_in) == 2, "both workers let appliances in")
    return enrolled


def _no_keys(folder):
    """Nobody's token is good here."""
    write_keys(folder / "keys.json", new_key("nobody's"))
    return folder / "keys.json"


def test_an_appliance_is_let_in_by_its_certificate_without_a_token(fleet, origin, path):
    content = origin.put(path, BLOCK + 10)
    answer = fleet.get(path, fleet.context("lis-1"))
    assert (answer.status, answer.body) == (200, content)
    # At the film port the same question needs a token.
    with Wire(fleet.one.port) as viewer:
        assert viewer.get(path).status == 401


def test_nobody_else_is_let_in(fleet, tmp_path, path):
    stranger = Authority(tmp_path)
    strangers = [
        fleet.authority.trusted(),
        fleet.context("lis-1", by=stranger),
        fleet.context("lis-1", uri="urn:oca:steering:lis-1"),
    ]
    for context in strangers:
        with pytest.raises((ssl.SSLError, ConnectionError, Cut)):
            fleet.get(path, context)
    old = fleet.context("lis-1")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        fleet.get(path, old)


def test_a_revoked_certificate_is_not_believed_any_more_and_a_newer_one_is(fleet, origin, path):
    content = origin.put(path, 1000)
    now = dt.datetime.now(dt.UTC)
    before = fleet.context("lis-2", begins=now - dt.timedelta(hours=2))
    with Wire(fleet.one.fleet_port, tls=before) as kept:
        assert kept.get(path).body == content
        fleet.revoke(**{"lis-2": time.time() - 3600})
        # A connection that is open ends too.
        kept.wait_closed()

    def is_refused():
        with contextlib.suppress(ssl.SSLError, ConnectionError, Cut):
            fleet.get(path, before)
            return False
        return True

    # Each worker looks for itself.
    wait_until(lambda: all(is_refused() for _ in range(16)), "both workers refuse it")
    after = fleet.context("lis-2", begins=now - dt.timedelta(minutes=5))
    assert fleet.get(path, after).body == content
    assert fleet.get(path, fleet.context("lis-3")).body == content
    assert fleet.one.metric("oca_tls_handshakes_total", result="refused") >= 1


def test_a_session_is_never_resumed_there(fleet, path):
    context = fleet.context("lis-1")
    with Wire(fleet.one.fleet_port, tls=context) as wire:
        wire.get(path)
        session = wire.tls.session
    with Wire(fleet.one.fleet_port, tls=context, session=session) as wire:
        wire.get(path)
        assert not wire.tls.session_reused
