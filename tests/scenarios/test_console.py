"""The NOC's console: who is let in, what is seen, what is done, and that nobody waits for a dead appliance."""

import contextlib
import socket
import sqlite3
import ssl
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from tests.doubles.appliance import PATIENCE, exchange, free_port, wait_until
from tests.doubles.authority import Authority
from tests.doubles.console import PASSWORD, Console, Person, accounts
from tests.doubles.origin import Origin
from tests.doubles.provider import CLIENT, SECRET, provider
from tests.doubles.steering import Chorus, Replica, site
from tests.doubles.steering import appliance as entry

FILM = "/titles/film/720p.1f/seg-1.m4s"
WINDOW = {"start": 4_070_908_800.0, "stop": 4_070_916_000.0}


@pytest.fixture(scope="module")
def noc(module_appliance, tmp_path_factory):
    """A real appliance, some that only speak, one of these at an address that never answers; and a console."""
    folder = tmp_path_factory.mktemp("noc")
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin())
        # Whoever connects is left alone: nobody accepts.
        hole = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        box = module_appliance(origin.url, name="lis-1")
        box.launch(listen={"workers": 1})
        declared = {
            "operator": [{"id": "isp"}],
            "site": [
                {**site("lis", "isp", 38.7, -9.1, "PT", serves="everyone"), "name": "Lisbon"},
                site("mad", "isp", 40.4, -3.7, "ES"),
            ],
            "appliance": [
                entry("lis-1", "lis", url=box.url, metrics=f"127.0.0.1:{box.control_port}"),
                entry("lis-2", "lis", metrics=f"127.0.0.1:{free_port()}"),
                entry("mad-1", "mad", metrics=f"127.0.0.1:{hole.getsockname()[1]}"),
                entry("mad-2", "mad"),
            ],
        }
        replica = Replica(folder / "steering", declared)
        stack.callback(replica.kill)
        replica.start(patience={"rise": 1, "ramp": 1})
        chorus = stack.enter_context(Chorus(replica))
        console = Console(folder / "console", f"http://127.0.0.1:{replica.admin_port}")
        stack.callback(console.kill)
        console.start()
        box.wait_ready()
        yield SimpleNamespace(box=box, origin=origin, replica=replica, chorus=chorus, console=console)


@pytest.fixture(autouse=True)
def all_serve(noc):
    for name in noc.chorus.speakers:
        noc.replica.change({"type": "set-wish", "appliance": name, "wish": "serve"})
    wait_until(lambda: all(noc.replica.standing(name) == "serving" for name in noc.chorus.speakers), "all serve")


@pytest.fixture(scope="module")
def vera(noc):
    return noc.console.person("vera")


@pytest.fixture(scope="module")
def olaf(noc):
    return noc.console.person("olaf")


@pytest.fixture(scope="module")
def ada(noc):
    return noc.console.person("ada")


@pytest.fixture
def make(noc, tmp_path):
    """Consoles of one test, with settings of their own."""
    made = []

    def make(replica=noc.replica, **more):
        folder = tmp_path / str(len(made))
        made.append(Console(folder, f"http://127.0.0.1:{replica.admin_port}", **more))
        return made[-1].start()

    yield make
    for one in made:
        one.kill()


def rows(person):
    return person.get("/api/fleet").json()["rows"]


# --- Who is let in ---


def test_pages_lead_to_the_log_in_and_answers_say_so(noc):
    port = noc.console.port
    for path in ("/", "/assets/console.js", "/runbooks/ApplianceLost"):
        got = exchange(port, "GET", path, {})
        assert (got.status, got.headers["Location"]) == (303, "/login"), path
    for path in ("/api/fleet", "/api/events?since=0", "/api/audit", "/api/nothing"):
        got = exchange(port, "GET", path, {"Cookie": "oca-console=made-up"})
        assert (got.status, got.json()["error"].startswith("log in first")) == (401, True), path
    assert exchange(port, "POST", "/api/drain", {}, b"{}").status == 401
    assert exchange(port, "GET", "/login", {}).status == 200


def test_a_session_is_a_strict_cookie_that_scripts_can_not_read(noc):
    got = noc.console.try_log_in("vera")
    name, _, rest = got.headers["Set-Cookie"].partition("=")
    assert name == "oca-console"
    assert {"HttpOnly", "Path=/", "SameSite=Strict"} <= set(rest.split("; ")[1:])
    kept = sqlite3.connect(noc.console.folder / "state" / "console.sqlite")
    dump = "\n".join(kept.iterdump())
    kept.close()
    assert rest.split(";")[0] not in dump, "what is kept does not let anybody in"
    assert PASSWORD not in dump


def test_every_answer_is_hardened(noc, vera):
    for path in ("/login", "/", "/assets/console.js", "/api/fleet", "/api/nothing"):
        got = exchange(noc.console.port, "GET", path, {"Cookie": vera.cookie})
        policy = got.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["X-Frame-Options"] == "DENY"
        assert "Strict-Transport-Security" not in got.headers, "this one is without TLS"
    events = vera.events(0)
    assert events.answer.headers["Content-Security-Policy"]
    events.close()


def test_a_wrong_password_and_a_wrong_name_are_told_alike(noc):
    wrong = noc.console.try_log_in("ada", "not the password")
    nobody = noc.console.try_log_in("eve", PASSWORD)
    assert (wrong.status, nobody.status) == (401, 401)
    assert wrong.body == nobody.body
    assert "Set-Cookie" not in wrong.headers


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_sites_page_can_neither_log_in_nor_act(noc, olaf, headers):
    assert noc.console.try_log_in("ada", **headers).status == 403
    got = olaf.post("/api/drain", {"appliances": ["lis-2"], "why": "x"}, **headers)
    assert (got.status, "another site" in got.json()["error"]) == (403, True)
    assert noc.replica.standing("lis-2") == "serving"


@pytest.mark.parametrize("body", [b"name=%ff&password=%fe", b"name=\xff&password=\xfe", b"", b"name=ada", b"&&&=" * 9])
def test_whatever_is_sent_as_a_form_lets_nobody_in_and_breaks_nothing(noc, body):
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "oca-console=\xff"}
    got = exchange(noc.console.port, "POST", "/login", headers, body)
    assert got.status in {400, 401}, got.body
    assert got.headers["Content-Security-Policy"]


def test_our_own_page_may(noc, olaf):
    assert noc.console.try_log_in("ada", Origin=noc.console.url).status == 200
    assert olaf.post("/api/resume", {"appliances": ["lis-2"], "why": "x"}, Origin=noc.console.url).status == 200


@pytest.mark.parametrize("token", ["", "x", "\xe9"])
def test_nothing_is_done_without_the_sessions_token(noc, olaf, token):
    got = olaf.post("/api/drain", {"appliances": ["lis-2"], "why": "x"}, **{"X-CSRF-Token": token})
    assert (got.status, "X-CSRF-Token" in got.json()["error"]) == (403, True)
    other = noc.console.person("olaf")
    assert olaf.post("/api/resume", {"appliances": ["lis-2"], "why": "x"}, **{"X-CSRF-Token": other.csrf}).status == 403


def test_failures_are_limited_by_address_and_by_name(make):
    console = make(proxies=["127.0.0.1/32"])
    for _ in range(10):
        assert console.try_log_in("ada", "wrong", **{"X-Forwarded-For": "203.0.113.5"}).status == 401
    assert console.try_log_in("ada", **{"X-Forwarded-For": "203.0.113.5"}).status == 429, "even with the right one"
    assert console.try_log_in("vera", **{"X-Forwarded-For": "203.0.113.6"}).status == 200, "others may"
    for number in range(10):
        assert console.try_log_in("ada", "wrong", **{"X-Forwarded-For": f"2001:db8::{number}"}).status == 401
    assert console.try_log_in("vera", **{"X-Forwarded-For": "2001:db8::99"}).status == 429, "a /64 is one host"
    assert console.try_log_in("ada", **{"X-Forwarded-For": "203.0.113.7"}).status == 429, "20 failures with this name"


def test_who_was_here_before_is_not_shut_out_by_others(make):
    console = make(proxies=["127.0.0.1/32"])
    assert console.try_log_in("ada", **{"X-Forwarded-For": "203.0.113.1"}).status == 200
    for number in range(20):
        assert console.try_log_in("ada", "wrong", **{"X-Forwarded-For": f"198.51.100.{number}"}).status == 401
    assert console.try_log_in("ada", **{"X-Forwarded-For": "198.51.100.99"}).status == 429
    assert console.try_log_in("ada", **{"X-Forwarded-For": "203.0.113.1"}).status == 200


def test_many_at_once_are_limited_too(make):
    console = make()
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(console.try_log_in("ada", "wrong").status)) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses.count(401), statuses.count(429)) == (10, 20)


def test_addresses_that_a_client_makes_up_are_not_believed(make):
    console = make()
    for number in range(10):
        assert console.try_log_in("ada", "wrong", **{"X-Forwarded-For": f"203.0.113.{number}"}).status == 401
    assert console.try_log_in("ada", **{"X-Forwarded-For": "203.0.113.99"}).status == 429


def test_sessions_outlive_a_restart_and_end_with_their_time(make):
    console = make()
    person = console.person("ada")
    console.stop()
    console.start()
    assert person.get("/api/me").json()["name"] == "ada"
    console.stop()
    console.settings["sessions"] = {"idle": "1 s", "longest": "1 h"}
    console.start()
    wait_until(lambda: person.get("/api/me").status == 401, "it is idle for too long")


def test_a_role_that_was_taken_away_is_gone_at_once_with_a_restart(make):
    console = make()
    olaf, ada = console.person("olaf"), console.person("ada")
    console.stop()
    console.settings["account"] = [{**one, "role": "viewer"} for one in accounts() if one["name"] == "olaf"]
    console.start()
    assert olaf.get("/api/me").json()["role"] == "viewer"
    assert olaf.post("/api/drain", {"appliances": ["lis-2"], "why": "x"}).status == 403
    assert ada.get("/api/me").status == 401, "whoever is out of the settings is out"


def test_who_logs_out_is_out(noc):
    person = noc.console.person("vera")
    assert person.post("/logout", {}).json() == {"left": True}
    assert person.get("/api/me").status == 401


def test_an_admin_ends_others_sessions_and_their_streams_end(noc, ada):
    person = noc.console.person("vera")
    own = person.get("/api/sessions")
    assert (own.status, own.json()["error"]) == (403, "vera is viewer; allowed: admin")
    last = max(ada.get("/api/sessions").json(), key=lambda one: one["begun_at"])
    assert (last["name"], last["is_own"]) == ("vera", False)
    assert ada.post("/api/sessions/end", {"session": last["session"]}).status == 200
    assert person.get("/api/fleet").status == 401
    assert ada.post("/api/sessions/end", {"session": "0" * 64}).status == 400
    assert ada.get("/api/me").status == 200


def test_behind_a_proxy_with_tls_cookies_go_over_tls_only(make):
    console = make(public_url="https://noc.example")
    got = console.try_log_in("ada", Origin="https://noc.example")
    assert got.headers["Set-Cookie"].startswith("__Host-oca-console=")
    assert "; Secure" in got.headers["Set-Cookie"]
    assert got.headers["Strict-Transport-Security"].startswith("max-age=")
    assert console.try_log_in("ada", Origin="http://noc.example").status == 403


def test_it_speaks_tls_itself(noc, tmp_path):
    authority = Authority(tmp_path)
    pem = authority.sign("noc", "noc.pem")
    console = Console(tmp_path / "console", f"http://127.0.0.1:{noc.replica.admin_port}", tls={"cert": pem, "key": pem})
    console.trusted = ssl.create_default_context(cafile=str(authority.path))
    try:
        console.start()
        got = console.try_log_in("ada", Origin=f"https://127.0.0.1:{console.port}")
        assert got.headers["Set-Cookie"].startswith("__Host-oca-console=")
        console.stop()
    finally:
        console.kill()


def test_a_certificate_that_can_not_be_used_is_named(make, tmp_path):
    config = tmp_path / "console.toml"
    console = make()
    tls = '[tls]\ncert = "/nowhere.pem"\nkey = "/nowhere.pem"\n'
    config.write_text((console.folder / "console.toml").read_text() + tls)
    ran = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert (ran.exit_code, "/nowhere.pem" in ran.stderr) == (2, True)


# --- Single sign-on ---


@pytest.fixture
def sso(make, tmp_path):
    with provider() as it:
        secret = tmp_path / "secret"
        secret.write_text(SECRET + "\n")
        settings = {
            "issuer": it.url,
            "client_id": CLIENT,
            "client_secret_file": str(secret),
            "title": "The company's log-in",
        }
        roles = {"viewer": ["isp"], "admin": ["leads"]}
        yield SimpleNamespace(it=it, console=make(oidc=settings, **{"oidc.roles": roles}))


def signed_on(sso):
    """The way that a browser goes: to the provider, and back. What the console says at last."""
    port = sso.console.port
    begun = exchange(port, "GET", "/sso", {})
    pending = begun.headers["Set-Cookie"].partition(";")[0]
    assert "SameSite=Lax" in begun.headers["Set-Cookie"], "or it would not come back from the provider"
    there = urlsplit(begun.headers["Location"])
    went = exchange(there.port, "GET", f"{there.path}?{there.query}", {})
    back = urlsplit(went.headers["Location"])
    return exchange(port, "GET", f"{back.path}?{back.query}", {"Cookie": pending}), pending, back


def test_the_operators_provider_lets_people_in_with_their_roles(sso):
    sso.it.claims = {"email": "mia@isp.example", "groups": ["leads", "isp"]}
    got, pending, back = signed_on(sso)
    assert got.status == 200, got.body
    cookie = next(one for one in got.headers.get_all("Set-Cookie") if one.startswith("oca-console=")).partition(";")[0]
    told = Person(sso.console.port, cookie).get("/api/me").json()
    assert (told["name"], told["role"]) == ("mia@isp.example", "admin")
    again = exchange(sso.console.port, "GET", f"{back.path}?{back.query}", {"Cookie": pending})
    assert again.status == 502, "an answer is good once"
    assert b"The company&#x27;s log-in" in exchange(sso.console.port, "GET", "/login", {}).body


def test_who_has_no_role_is_not_let_in_and_that_is_kept(sso):
    sso.it.claims = {"email": "joe@isp.example", "groups": ["sales"]}
    got, *_ = signed_on(sso)
    assert (got.status, b"joe@isp.example has no role here" in got.body) == (403, True)
    (entry_, *_) = sso.console.person("ada").get("/api/audit").json()["entries"][1:]
    assert (entry_["who"], entry_["what"]) == ("joe@isp.example", "log-in")
    assert entry_["outcome"].startswith("refused")


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ({"nonce": "of another log-in"}, "of another log-in"),
        ({"aud": "another client"}, "Audience"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"sub": None}, "sub"),
    ],
)
def test_what_was_not_said_to_us_now_is_not_believed(sso, lie, says):
    sso.it.claims = {"email": "mia@isp.example", "groups": ["leads"]} | lie
    got, *_ = signed_on(sso)
    assert (got.status, says.lower() in got.body.decode().lower()) == (502, True), got.body


def test_only_the_providers_own_keys_are_believed(sso):
    sso.it.claims = {"email": "mia@isp.example", "groups": ["leads"]}
    with provider() as other:
        sso.it.signing = other.signing
        assert signed_on(sso)[0].status == 502
    sso.it.tells_algorithm = "none"
    assert signed_on(sso)[0].status == 502


def test_a_log_in_that_was_not_begun_in_this_browser_is_refused(sso):
    sso.it.claims = {"email": "mia@isp.example", "groups": ["leads"]}
    begun = exchange(sso.console.port, "GET", "/sso", {})
    there = urlsplit(begun.headers["Location"])
    back = urlsplit(exchange(there.port, "GET", f"{there.path}?{there.query}", {}).headers["Location"])
    for cookie in ({}, {"Cookie": "oca-console-sso=another"}):
        got = exchange(sso.console.port, "GET", f"{back.path}?{back.query}", cookie)
        assert (got.status, "Set-Cookie" in got.headers) == (400, False)


def test_a_provider_that_refuses_lies_or_is_gone_is_told(sso):
    sso.it.error = "access_denied"
    got, *_ = signed_on(sso)
    assert (got.status, b"access_denied" in got.body) == (502, True)


def test_a_provider_that_calls_itself_another_is_not_used(sso):
    sso.it.issuer_said = "https://evil.example"
    got = exchange(sso.console.port, "GET", "/sso", {})
    assert (got.status, b"it calls itself" in got.body) == (502, True)


# --- What is seen ---


def test_the_fleet_is_told_with_its_places(noc, vera):
    told = vera.get("/api/fleet").json()
    assert set(told["rows"]) == set(noc.chorus.speakers)
    assert [(one["id"], one["name"], one["latitude"]) for one in told["sites"]] == [
        ("lis", "Lisbon", 38.7),
        ("mad", "mad", 40.4),
    ]
    assert told["sources"]["steering"]["error"] is None
    assert told["rows"]["mad-1"]["capacity"] == 1e10


def test_what_changes_is_told_to_who_looks_on_and_only_that(noc, vera):
    events = vera.events(vera.get("/api/fleet").json()["version"])
    noc.chorus.speakers["mad-2"].said["hit_ratio"] = 0.11
    try:
        change = next_with(events, "mad-2")
        assert change["rows"]["mad-2"] == {"hits": 0.11}
    finally:
        noc.chorus.speakers["mad-2"].said["hit_ratio"] = 0.9
        events.close()


def next_with(events, name):
    """The next change that tells of an appliance."""
    for _ in range(100):
        told = events.next()
        assert isinstance(told, dict), told
        if name in told.get("rows", {}):
            return told
    raise AssertionError(f"nothing is told of {name}")


def test_who_was_away_for_a_moment_is_told_what_was_missed_and_who_was_away_for_long_begins_anew(noc, vera):
    version = vera.get("/api/fleet").json()["version"]
    noc.chorus.speakers["mad-2"].said["hit_ratio"] = 0.22
    try:
        wait_until(lambda: rows(vera)["mad-2"]["hits"] == 0.22, "it is seen")
        events = vera.events(version)
        assert next_with(events, "mad-2")["rows"]["mad-2"]["hits"] == 0.22
        events.close()
    finally:
        noc.chorus.speakers["mad-2"].said["hit_ratio"] = 0.9
    for since in (version + 100_000, 10**30):
        events = vera.events(since)
        assert (events.next(), events.next()) == ("anew", "over")
        events.close()
    assert vera.get("/api/events?since=x").status == 400
    assert vera.get("/api/events").status == 400


def test_what_an_appliance_does_not_say_is_told_by_steering(noc, vera):
    noc.replica.public(f"/v1/steer?path={FILM}&client=192.0.2.1")
    told = vera.get("/api/appliances/lis-1").json()
    assert (told["member"]["standing"], told["member"]["site"]) == ("serving", "lis")
    assert told["member"]["heartbeat"]["ready"] is True
    assert [told["changes"][0][name] for name in ("kind", "id", "who")] == ["appliance", "lis-1", "ana"]
    wait_until(lambda: vera.get("/api/appliances/lis-1").json()["decisions"], "a decision is kept")
    (decision, *_) = vera.get("/api/appliances/lis-1").json()["decisions"]
    assert (decision["content"], "lis-1" in decision["answer"]) == ("film", True)
    box = vera.get("/api/appliances/lis-1/box").json()
    assert [one["standing"] for one in box["devices"]] == ["online"]


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("lis-2", 502, "no answer"), ("mad-2", 502, "no address (metrics) of mad-2"), ("nobody", 404, "no appliance")],
)
def test_an_appliance_that_can_not_be_asked_is_said_to_be_so(vera, name, status, says):
    got = vera.get(f"/api/appliances/{name}/box")
    assert (got.status, says in got.json()["error"].lower()) == (status, True), got.body


def test_nobody_waits_for_an_appliance_that_does_not_answer(noc, vera):
    asked = threading.Event()
    told = []

    def ask():
        asked.set()
        told.append(vera.get("/api/appliances/mad-1/box"))

    waiting = threading.Thread(target=ask)
    waiting.start()
    asked.wait(PATIENCE)
    for path in ("/api/fleet", "/api/appliances/mad-1", "/api/audit", "/api/explain?client=192.0.2.1&path=/x"):
        assert vera.get(path).status == 200
        assert not told, f"{path} came first"
    waiting.join(PATIENCE)
    assert told[0].status == 502
    assert "no answer" in told[0].json()["error"]


def test_steering_that_is_gone_is_said_so_and_the_last_view_stays(noc, make, tmp_path):
    replica = Replica(tmp_path / "steering")
    replica.start(patience={"rise": 1})
    try:
        replica.serving()
        console = make(replica)
        person = console.person("olaf")
        wait_until(lambda: person.get("/api/fleet").json()["sources"]["steering"]["error"] is None, "it is asked")
        known = set(rows(person))
        assert known
        replica.kill()
        wait_until(lambda: person.get("/api/fleet").json()["sources"]["steering"]["error"], "it is missed")
        told = person.get("/api/fleet").json()
        assert set(told["rows"]) == known
        assert time.time() - 60 < told["sources"]["steering"]["heard_at"] <= time.time()
        got = person.post("/api/drain", {"appliances": ["lis-1"], "why": "x"})
        assert (got.status, "no answer" in got.json()["error"]) == (502, True)
        assert person.get("/api/appliances/lis-1").status == 502
        audit = person.get("/api/audit").json()
        assert audit["error"], "of steering nothing can be told"
        assert audit["entries"], "what is kept here can"
        replica.start()
        wait_until(lambda: person.get("/api/fleet").json()["sources"]["steering"]["error"] is None, "it is back")
    finally:
        replica.kill()


def test_a_console_without_prometheus_alertmanager_or_bucket_says_so(vera, olaf):
    told = vera.get("/api/me").json()
    assert (told["prometheus"], told["alertmanager"]) == (False, False)
    assert vera.get("/api/charts").status == 404
    fill = vera.get("/api/fill").json()
    assert (fill["agents"], fill["plan"]["error"]) == ([], "there is no [fill] in the console's settings")
    got = olaf.post("/api/alerts/acknowledge", {"fingerprint": "x", "note": "y"})
    assert (got.status, "does not fire" in got.json()["error"]) == (400, True)


def test_a_decision_is_explained_and_what_can_not_be_asked_is_said(vera):
    told = vera.get("/api/explain?client=192.0.2.1&path=/x").json()
    assert told["ranked"]
    got = vera.get("/api/explain?client=nobody&path=/x")
    assert (got.status, '"client"' in got.json()["error"]) == (400, True)


def test_runbooks_are_read_in_the_console(vera):
    got = vera.get("/runbooks/ApplianceLost")
    assert got.status == 200
    assert "<h1>" in got.body.decode()
    assert vera.get("/runbooks/ApplianceLost.md").status == 200, "as the links of alerts have it"
    for path in ("/runbooks/NoSuchAlert", "/runbooks/..%2fREADME", "/runbooks/README%00"):
        assert vera.get(path).status == 404, path


# --- What is done ---


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("/api/drain", {"appliances": ["lis-2"], "why": "x"}),
        ("/api/resume", {"appliances": ["lis-2"], "why": "x"}),
        ("/api/maintenance", {"appliances": ["lis-2"], "why": "x", **WINDOW}),
        ("/api/maintenance/cancel", {"appliance": "lis-2", "why": "x"}),
        ("/api/purge", {"path": "/x", "why": "x"}),
        ("/api/alerts/acknowledge", {"fingerprint": "x", "note": "x"}),
        ("/api/alerts/snooze", {"fingerprint": "x", "note": "x", "seconds": 3600}),
        ("/api/alerts/wake", {"fingerprint": "x"}),
        ("/api/sessions/end", {"session": "0" * 64}),
    ],
)
def test_viewers_may_do_nothing(noc, vera, path, order):
    got = vera.post(path, order)
    assert (got.status, got.json()["error"].startswith("vera is viewer; allowed:")) == (403, True)
    assert noc.replica.standing("lis-2") == "serving"


def test_a_drain_is_done_seen_and_kept_with_who_and_why(noc, olaf):
    got = olaf.post("/api/drain", {"appliances": ["lis-2"], "why": "a disk swap", "force": True})
    assert got.json() == {"appliances": ["lis-2"]}
    wait_until(lambda: rows(olaf)["lis-2"]["state"] == "resting", "it is seen")
    assert rows(olaf)["lis-2"]["trouble"] == ""
    told = olaf.get("/api/audit").json()
    assert (told["changes"][0]["who"], told["changes"][0]["why"]) == ("olaf", "a disk swap")
    last = told["entries"][0]
    assert [last[name] for name in ("who", "role", "address", "what", "about", "why", "outcome")] == [
        "olaf",
        "operator",
        "127.0.0.1",
        "drain",
        "lis-2",
        "a disk swap",
        "done",
    ]
    assert olaf.post("/api/resume", {"appliances": ["lis-2"], "why": "done"}).status == 200
    wait_until(lambda: rows(olaf)["lis-2"]["state"] == "well", "it is back")


def test_a_site_that_can_not_do_without_is_drained_by_force_only(noc, olaf):
    order = {"site": "mad", "why": "rewiring"}
    got = olaf.post("/api/drain", order)
    said = "nothing was changed: mad has no other appliance for its viewers; with force it is done all the same"
    assert (got.status, said in got.json()["error"]) == (409, True)
    assert noc.replica.standing("mad-1") == "serving"
    assert olaf.get("/api/audit").json()["entries"][0]["outcome"].startswith("refused: ")
    assert olaf.post("/api/drain", {**order, "force": True}).json() == {"appliances": ["mad-1", "mad-2"]}
    wait_until(lambda: noc.replica.standing("mad-2") in {"draining", "drained"}, "it is drained")


def test_maintenance_is_planned_seen_and_cancelled(noc, olaf):
    begun = time.time() + 40 * 86400
    window = {"start": begun, "stop": begun + 7200}
    assert (
        olaf.post("/api/maintenance", {"appliances": ["lis-2"], "why": "a fan", **window, "force": True}).status == 200
    )
    wait_until(lambda: rows(olaf)["lis-2"]["maintenance"] == [{**window, "forced": True}], "it is seen")
    cancel = {"appliance": "lis-2", "start": begun, "why": "not needed"}
    assert olaf.post("/api/maintenance/cancel", cancel).status == 200
    assert olaf.post("/api/maintenance/cancel", cancel).status == 409
    wait_until(lambda: rows(olaf)["lis-2"]["maintenance"] == [], "it is gone")


@pytest.mark.parametrize(
    ("path", "order", "says"),
    [
        ("/api/drain", {"appliances": ["lis-9"], "why": "x"}, "no appliance 'lis-9'"),
        ("/api/drain", {"why": "x"}, "say which"),
        ("/api/drain", {"appliances": ["lis-1"], "site": "lis", "why": "x"}, "say which"),
        ("/api/drain", {"appliances": ["lis-1"]}, "why"),
        ("/api/drain", {"appliances": ["lis-1"], "why": ""}, "why"),
        ("/api/drain", {"appliances": ["lis-1"], "why": "x", "color": 1}, "color"),
        ("/api/drain", [], "not what is allowed here"),
        ("/api/maintenance", {"appliances": ["lis-1"], "why": "x", "start": 9e9, "stop": 8e9}, "end after it begins"),
        ("/api/maintenance", {"appliances": ["lis-1"], "why": "x", "start": 1.0, "stop": 2.0}, "be over already"),
        ("/api/purge", {"path": "x", "why": "x"}, "path"),
        ("/api/purge", {"path": "/x", "why": "x", "site": "nowhere"}, "nobody to tell"),
        ("/api/alerts/snooze", {"fingerprint": "x", "note": "x", "seconds": 1}, "seconds"),
    ],
)
def test_orders_that_can_not_be_are_refused_in_words(olaf, path, order, says):
    got = olaf.post(path, order)
    status = 409 if "start" in order else 400
    assert (got.status, says in got.json()["error"]) == (status, True), got.body


def test_a_body_that_is_too_large_is_refused(olaf):
    got = olaf.post("/api/drain", {"appliances": ["x" * 90] * 9000, "why": "x"})
    assert got.status == 413


def test_a_purge_goes_over_the_fleet_with_its_progress_and_names_who_was_not_reached(noc, olaf):
    noc.origin.put(FILM, 10_000)
    assert noc.box.get(FILM).status == 200
    noc.box.wait_stored(FILM)
    got = olaf.post("/api/purge", {"path": "/titles/film/", "is_prefix": True, "site": "lis", "why": "a wrong cut"})
    assert got.json()["untold"] == 0

    def job():
        return next(one for one in olaf.get("/api/fleet").json()["jobs"] if one["number"] == got.json()["job"])

    wait_until(lambda: job()["ended_at"], "it ends")
    told = job()
    assert (told["total"], told["done"], told["purged"], told["failures"]) == (2, 2, 1, 1)
    assert list(told["failed"]) == ["lis-2"]
    assert not noc.box.get(FILM).is_hit, "it is fetched anew"

    def outcome():
        return [one["outcome"] for one in olaf.get("/api/audit").json()["entries"] if one["what"].startswith("purge")]

    wait_until(lambda: outcome()[0] == "1 objects at 1 of 2 appliances", "what came of it is kept")


def test_the_audit_log_is_read_page_by_page(olaf):
    whole = olaf.get("/api/audit?limit=1000").json()["entries"]
    numbers = [one["number"] for one in whole]
    assert numbers == sorted(numbers, reverse=True)
    page = olaf.get(f"/api/audit?limit=2&before={numbers[1]}").json()["entries"]
    assert [one["number"] for one in page] == numbers[2:4]
    for query in ("limit=0", "limit=5000", "limit=x", "before=x"):
        assert olaf.get(f"/api/audit?{query}").status == 400


# --- Its commands ---


def test_settings_are_checked_without_being_served(tmp_path):
    config = tmp_path / "console.toml"
    config.write_text('state_dir = "/x"\nsteering = "nowhere"\n')
    ran = CliRunner().invoke(app, ["serve", "--config", str(config), "--check"])
    assert (ran.exit_code, "allowed: http(s)://host:port" in ran.stderr) == (2, True)
    assert len(ran.stderr.strip().splitlines()) == 1


def test_a_password_becomes_a_hash_and_a_short_one_does_not():
    ran = CliRunner().invoke(app, ["password"], input=PASSWORD + "\n")
    assert (ran.exit_code, ran.stdout.startswith("$argon2id$")) == (0, True)
    short = CliRunner().invoke(app, ["password"], input="short\n")
    assert (short.exit_code, "allowed: 12 to 1024" in short.stderr) == (2, True)


def test_a_port_that_is_taken_is_said_so(noc, tmp_path):
    config = tmp_path / "console.toml"
    text = (noc.console.folder / "console.toml").read_text()
    config.write_text(text.replace(str(noc.console.folder / "state"), str(tmp_path / "state")))
    ran = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert (ran.exit_code, "can't be listened on" in ran.stderr) == (6, True), ran.output


def test_it_ends_cleanly_while_people_look_on(make):
    console = make()
    events = console.person("vera").events(0)
    console.stop()
    events.close()
