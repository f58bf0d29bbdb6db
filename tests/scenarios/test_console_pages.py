"""The console in a real browser, of a fleet that runs: every page and act, by keyboard too, at three sizes, at night.

Screenshots of every page come to lie in pytest's temporary folder, to be looked at: screens-*.
"""

import contextlib
import csv
import os
import re
import signal
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, expect, sync_playwright

from admin.demo.smoke import BROWSER_ARGUMENTS, find_browser
from admin.errors import MachineError
from tests.doubles.appliance import PATIENCE, wait_until
from tests.doubles.console import PASSWORD, Console
from tests.doubles.noc import BOXES, BUCKET, FILM
from tests.doubles.noc import noc as watched_fleet
from tests.doubles.prometheus import lacking
from tests.doubles.s3 import S3Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGES = {
    "fleet": "#/",
    "appliances": "#/appliances",
    "site": "#/site/lis",
    "appliance": "#/appliance/lis-1",
    "issues": "#/issues",
    "fill": "#/fill",
    "explain": f"#/explain?client=192.0.2.1&path={FILM}",
    "purge": "#/purge",
    "audit": "#/audit",
    "no such": "#/nowhere",
    "no such appliance": "#/appliance/nobody",
}
SIZES = {"phone": (390, 844), "desk": (1366, 768), "wall": (2560, 1440)}
SCHEMES = {"phone": "dark", "desk": "light", "wall": "dark"}
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def noc(module_appliance, tmp_path_factory):
    if lacking():
        pytest.skip(f"not here: {', '.join(lacking())}; apt-get install prometheus prometheus-alertmanager")
    with watched_fleet(module_appliance, tmp_path_factory.mktemp("noc")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def console(noc, tmp_path_factory):
    made = Console(
        tmp_path_factory.mktemp("console"),
        f"http://127.0.0.1:{noc.replica.admin_port}",
        prometheus={"url": f"http://127.0.0.1:{noc.prometheus.port}"},
        alertmanager={"url": f"http://127.0.0.1:{noc.prometheus.alertmanager_port}"},
        fill={"bucket": BUCKET, "endpoint_url": noc.store.endpoint_url},
    )
    made.env = S3Server.environment()
    try:
        yield made.start()
        made.stop()
    finally:
        made.kill()


@pytest.fixture(scope="module")
def browser():
    try:
        path = find_browser()
    except MachineError as error:
        pytest.skip(str(error))
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=path, headless=True, args=list(BROWSER_ARGUMENTS))
        yield made
        made.close()


@pytest.fixture(scope="module")
def sessions():
    """Who is logged in already, by name."""
    return {}


@pytest.fixture
def page(browser, console, sessions):
    """Makes pages of somebody who is logged in. Whatever the browser complains of is an error."""
    said, contexts = [], []

    def make(name="olaf", size="desk", **more):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        made = context.new_page()
        made.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        made.on("pageerror", lambda error: said.append(str(error)))
        made.on("console", lambda told: said.append(told.text) if is_complaint(told) else None)
        if name is None:
            return made
        if name in sessions:
            context.add_cookies(sessions[name])
        else:
            log_in(made, console, name)
            sessions[name] = context.cookies()
        go(made, console, "#/")
        return made

    yield make
    for context in contexts:
        with contextlib.suppress(Error):
            context.close()
    assert not said


def is_complaint(told):
    """Answers that refuse are told by the page itself; so is a console that is gone."""
    return told.type == "error" and not told.text.startswith("Failed to load resource")


def log_in(page, console, name):
    page.goto(f"{console.url}/login")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url(f"{console.url}/")


def go(page, console, where):
    page.goto(f"{console.url}/{where}")
    expect(page.locator("main h1")).to_be_visible()
    expect(page.locator(".waiting")).to_have_count(0)


def confirm(page, why):
    """Say why in the dialog, and do it."""
    page.locator("dialog textarea").fill(why)
    page.locator("dialog button.main").click()


def said(page):
    return page.locator("#said")


def order(noc, name, wish):
    noc.replica.change({"type": "set-wish", "appliance": name, "wish": wish})


# --- Every page ---


def test_every_chart_is_drawn_of_what_prometheus_knows(noc, console):
    """First, as series need some seconds to become lines."""
    person = console.person("vera")

    def lines(query):
        """Charts without lines, viewers watching meanwhile."""
        for box in noc.boxes.values():
            assert box.get(FILM).status == 200
        got = person.get(f"/api/charts?{query}")
        assert got.status == 200, got.body
        panels = got.json()
        assert len(panels) == 6
        # Of answers that failed there are none: no line is the truth there.
        return [one["id"] for one in panels if not any(line["points"] for line in one["lines"])]

    for query in ("appliance=mad-1", "site=lis", ""):
        wait_until(lambda query=query: set(lines(query)) <= {"errors"}, f"charts of {query or 'the fleet'}", 90)
    for query in ("span=1y", "appliance=a%22%7D", "site=%2e%2a%22"):
        assert person.get(f"/api/charts?{query}").status == 400


@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_whole_at_every_size_by_day_and_night(noc, console, page, tmp_path_factory, size):
    noc.replica.public(f"/v1/steer?path={FILM}&client=192.0.2.1")
    shots = tmp_path_factory.mktemp("screens-")
    one = page("ada", size, color_scheme=SCHEMES[size])
    for name, where in PAGES.items():
        go(one, console, where)
        one.screenshot(path=shots / f"{name.replace(' ', '-')}-{size}.png", full_page=True)
        assert one.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is as wide as {size}"
        found = Axe().run(one).response["violations"]
        bad = {rule["id"]: [one["html"] for one in rule["nodes"]][:3] for rule in found if rule["impact"] in SERIOUS}
        assert not bad, name
        shown = one.locator("main").inner_text()
        for word in ("undefined", "NaN", "[object", "null", "false"):
            assert word not in shown, f"{name} says {word}"


def test_the_log_in_has_no_serious_fault_and_says_what_is_wrong(console, page):
    one = page(None)
    one.goto(console.url)
    expect(one).to_have_url(f"{console.url}/login")
    assert not [rule["id"] for rule in Axe().run(one).response["violations"] if rule["impact"] in SERIOUS]
    one.fill("#name", "ada")
    one.fill("#password", "not the password")
    one.keyboard.press("Enter")
    expect(one.get_by_role("alert")).to_have_text("Name or password is wrong.")


# --- The fleet ---


def test_the_fleet_is_seen_at_a_glance_and_changes_by_itself(noc, page):
    one = page("vera")
    tiles = one.locator(".tiles")
    expect(tiles).to_contain_text("Appliances that serve3 of 3")
    expect(one.get_by_text("All is well.")).to_be_visible()
    expect(one.locator(".map a.well")).to_have_count(2)
    expect(one.locator("figure svg").first).to_be_visible()
    order(noc, "mad-1", "drain")
    expect(tiles).to_contain_text("2 of 3")
    expect(one.locator(".map a.warning")).to_have_count(1)  # Nobody serves at that site now.
    order(noc, "mad-1", "serve")
    expect(tiles).to_contain_text("3 of 3")
    one.locator(".map a[aria-label^='lis:']").dispatch_event("click")
    expect(one.locator("h1")).to_have_text("Site lis")


def test_charts_follow_the_span_and_the_pointer(console, page):
    one = page("vera")
    go(one, console, "#/appliance/lis-1")
    sent = one.locator("figure", has_text="Network cards")
    expect(sent.locator("path")).to_have_count(2)
    with one.expect_response(re.compile("span=6h")):
        one.locator("select[name=span]").select_option("6h")
    expect(sent.locator("path")).to_have_count(2)
    sent.locator("svg").hover()
    expect(sent.locator("li").first).to_contain_text(" at ")


def test_the_table_is_filtered_sorted_and_taken_along(console, page, tmp_path):
    one = page("vera")
    go(one, console, "#/appliances")
    ids = one.locator("tbody tr td:nth-child(2)")
    expect(ids).to_have_text(list(BOXES))
    one.get_by_role("button", name="Appliance", exact=True).click()
    expect(ids).to_have_text(sorted(BOXES, reverse=True))
    expect(one.locator("th[aria-sort=descending]")).to_have_text("Appliance")
    one.keyboard.press("/")
    one.keyboard.type("lis")
    expect(ids).to_have_text(["lis-2", "lis-1"])
    with one.expect_download() as download:
        one.get_by_role("button", name="Save as CSV").click()
    download.value.save_as(tmp_path / "taken.csv")
    with (tmp_path / "taken.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["id"], line["site"], line["standing"]) for line in lines] == [
        ("lis-2", "lis", "serving"),
        ("lis-1", "lis", "serving"),
    ]
    one.locator("select[name=state]").select_option("resting")
    expect(one.locator("tbody")).to_have_text("None of them is so.")


def test_viewers_look_and_are_told_that_they_may_not_act(console, page):
    one = page("vera")
    go(one, console, "#/appliance/lis-1")
    expect(one.get_by_text("You may look; operators may act.")).to_be_visible()
    for name in ("Drain", "Resume", "Plan maintenance"):
        expect(one.get_by_role("button", name=name)).to_have_count(0)
    go(one, console, "#/purge")
    expect(one.get_by_role("button", name="Purge")).to_have_count(0)
    go(one, console, "#/audit")
    expect(one.get_by_text("Who is logged in")).to_have_count(0)


# --- Acts ---


def test_everything_is_done_by_keyboard_alone(noc, console, page):
    """Log in, find an appliance, drain it, and bring it back: without a pointer."""
    one = page(None)
    keys = one.keyboard
    one.goto(f"{console.url}/login")
    expect(one.locator("#name")).to_be_focused()
    keys.type("olaf")
    keys.press("Tab")
    keys.type(PASSWORD)
    keys.press("Enter")
    one.wait_for_url(f"{console.url}/")
    expect(one.locator("h1")).to_have_text("Fleet")
    tab_to(one, "Appliances")
    keys.press("Enter")
    expect(one.locator("h1")).to_have_text("Appliances")
    keys.press("/")
    keys.type("mad-1")
    expect(one.locator("tbody tr")).to_have_count(1)
    tab_to(one, "Choose mad-1")
    keys.press("Space")
    expect(one.locator("caption").first).to_contain_text("1 chosen")
    tab_to(one, "Drain", back=True)
    keys.press("Enter")
    expect(one.get_by_role("dialog")).to_contain_text("Drain mad-1")
    keys.type("by keyboard")
    tab_to(one, "Drain")
    keys.press("Enter")
    expect(one.locator("dialog [role=alert]")).to_contain_text("with force it is done all the same")
    tab_to(one, "force", back=True)
    keys.press("Space")
    tab_to(one, "Drain")
    keys.press("Enter")
    expect(said(one)).to_contain_text("Draining: mad-1")
    expect(one.get_by_role("dialog")).to_have_count(0)
    expect(one.locator("tbody tr")).to_contain_text("drain")
    tab_to(one, "Resume", back=True)
    keys.press("Enter")
    keys.type("done")
    keys.press("Escape")
    expect(one.get_by_role("dialog")).to_have_count(0)
    assert noc.replica.standing("mad-1") in {"draining", "drained"}, "Escape leaves it"
    order(noc, "mad-1", "serve")
    expect(one.locator("tbody tr")).to_contain_text("serving")


def tab_to(page, name, *, back=False):
    """Press Tab until what has this name has the focus, and is seen to have it."""
    naming = (
        "() => { const at = document.activeElement;"
        " return at.getAttribute('aria-label') || at.name || at.textContent.trim(); }"
    )
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if page.evaluate(naming) == name:
            ring = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert ring != "none", f"{name} does not show that it has the focus"
            return
    raise AssertionError(f"{name} is not reached by Tab; at {page.evaluate(naming)}")


def test_who_is_in_a_list_that_redraws_itself_stays_there(noc, console, page):
    one = page("vera")
    go(one, console, "#/fill")
    tab_to(one, "lis-1")
    with one.expect_response(re.compile("/api/fill")):
        pass
    with one.expect_response(re.compile("/api/fill")):
        pass
    assert one.evaluate("document.activeElement.textContent") == "lis-1"


def test_the_content_is_reached_past_the_menu(console, page):
    one = page("vera")
    go(one, console, "#/appliances")
    one.reload()
    expect(one.locator("h1")).to_be_visible()
    one.keyboard.press("Tab")
    expect(one.locator(":focus")).to_have_text("To the content")
    one.keyboard.press("Enter")
    assert one.evaluate("document.activeElement.id") == "main"
    assert one.url.endswith("#/appliances")


def test_a_site_is_drained_by_force_and_brought_back(noc, console, page):
    one = page("olaf")
    go(one, console, "#/site/lis")
    one.get_by_label("Choose all that are shown").check()
    one.get_by_role("button", name="Drain").click()
    confirm(one, "power work")
    expect(one.locator("dialog [role=alert]")).to_contain_text("lis has no other appliance for its viewers")
    one.get_by_label("Do it all the same").check()
    one.locator("dialog button.main").click()
    expect(said(one)).to_have_text("Draining: lis-1, lis-2")
    expect(one.locator("tbody .state.resting")).to_have_count(2)
    one.get_by_role("button", name="Resume").click()
    confirm(one, "done")
    expect(one.locator("tbody .state.well")).to_have_count(2)


def test_maintenance_is_planned_seen_and_cancelled(console, page):
    one = page("olaf")
    go(one, console, "#/appliance/lis-2")
    one.get_by_role("button", name="Plan maintenance").click()
    later = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 20 * 86400))
    one.locator("dialog [name=start]").fill(later)
    one.locator("dialog [name=stop]").fill(later)
    confirm(one, "a fan")
    expect(one.locator("dialog [role=alert]")).to_contain_text("has to end after it begins")
    ends = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 20 * 86400 + 7200))
    one.locator("dialog [name=stop]").fill(ends)
    one.locator("dialog button.main").click()
    with contextlib.suppress(AssertionError):
        # On a busy machine the site is full by its processors.
        expect(one.get_by_role("dialog")).to_have_count(0, timeout=3000)
    if one.get_by_role("dialog").count():
        one.get_by_label("Do it all the same").check()
        one.locator("dialog button.main").click()
    window = one.locator("section", has=one.get_by_role("heading", name="Maintenance")).locator("li").first
    expect(window).to_contain_text(later.replace("T", " "))
    go(one, console, "#/")
    expect(one.locator("section", has_text="Maintenance").last).to_contain_text("lis-2")
    go(one, console, "#/appliance/lis-2")
    window.get_by_role("button", name="Cancel").click()
    confirm(one, "not needed")
    expect(said(one)).to_have_text("Cancelled: maintenance of lis-2")
    expect(one.get_by_text("None is planned.")).to_be_visible()


def test_an_appliance_is_seen_from_all_sides(noc, console, page):
    noc.replica.public(f"/v1/steer?path={FILM}&client=192.0.2.1")
    one = page("vera")
    go(one, console, "#/appliance/mad-1")
    facts = one.locator(".facts").first
    expect(facts).to_contain_text("Saysit is ready")
    devices = one.get_by_role("region", name="Devices")
    expect(devices).to_contain_text("online")
    expect(devices).to_contain_text("nvme")
    expect(one.get_by_role("region", name="Of the last decisions")).to_contain_text("film")
    expect(one.get_by_text("the inventory file: put-appliance")).to_be_visible()
    expect(one.locator("pre.log")).to_contain_text("INFO appliance mad-1 serves")


def test_a_decision_is_explained_in_a_form(console, page):
    one = page("vera")
    go(one, console, "#/explain")
    one.get_by_label("Viewer's address").fill("192.0.2.1")
    one.get_by_label("Path").fill(FILM)
    one.get_by_role("button", name="Explain").click()
    expect(one.get_by_role("region", name=re.compile("Ranked"))).to_contain_text("mad-1")
    expect(one.get_by_text(re.compile("^Answer: "))).to_be_visible()
    one.get_by_label("Viewer's address").fill("nobody")
    one.get_by_role("button", name="Explain").click()
    expect(one.locator("main [role=alert]")).to_contain_text("client")


def test_a_purge_is_watched_to_its_end(noc, console, page):
    for box in noc.boxes.values():
        assert box.get(FILM).status == 200
        box.wait_stored(FILM)
    one, other = page("olaf"), page("vera")
    go(one, console, "#/purge")
    go(other, console, "#/purge")
    one.get_by_label("Path").fill("/titles/film/")
    one.locator("[name=kind]").select_option("prefix")
    one.get_by_label("Why").fill("a wrong cut")
    one.get_by_role("button", name="Purge").click()
    for looking_on in (one, other):
        row = looking_on.locator("tbody tr").first
        expect(row).to_contain_text("done")
        expect(row).to_contain_text("3 of 3")
        expect(row.locator("td.number")).to_have_text("3")
    for box in noc.boxes.values():
        assert box.control("GET", f"/v1/objects?path={FILM}").status == 404


def test_the_fill_night_is_told_by_agents_and_by_the_plan(noc, console, page):
    one = page("vera")
    go(one, console, "#/fill")
    expect(one.get_by_text("no plan was applied yet")).to_be_visible()
    orders = one.get_by_role("region", name=re.compile("Orders"))
    expect(orders).to_contain_text("lis-1")
    noc.agent.kill()
    expect(orders).to_contain_text("silent")
    noc.agent.start().wait_up()
    expect(orders).not_to_contain_text("silent")


def test_the_audit_log_tells_who_did_what(console, page):
    one = page("ada")
    go(one, console, "#/audit")
    here = one.get_by_role("region", name="The latest first", exact=True)
    expect(here).to_contain_text("a wrong cut")
    expect(here).to_contain_text("refused: ")
    expect(one.get_by_role("region", name="Changes, the latest first")).to_contain_text("power work")
    expect(one.get_by_role("region", name="Sessions")).to_contain_text("this one")


def test_who_logs_out_is_out_in_all_windows(console, page):
    one = page(None)
    log_in(one, console, "vera")
    other = one.context.new_page()
    go(other, console, "#/appliances")
    one.get_by_role("button", name="Log out").click()
    one.wait_for_url(f"{console.url}/login")
    other.goto(f"{console.url}/#/issues")
    other.reload()
    expect(other.get_by_label("Password")).to_be_visible()


# --- What goes wrong ---


def test_a_loss_is_seen_acknowledged_snoozed_woken_and_over(noc, console, page):
    one, other = page("olaf"), page("vera")
    go(one, console, "#/issues")
    noc.boxes["lis-2"].kill_all()
    issue = one.locator("main li", has=one.get_by_text("ApplianceLost"))
    expect(issue).to_contain_text("lis-2 at lis does not answer.")
    expect(other.locator("#firing")).not_to_have_text("0")
    expect(other.locator(".map a.bad[aria-label^='lis:']")).to_have_count(1)
    expect(other.locator("main .list").first).to_contain_text("lis-2")

    issue.get_by_role("button", name="Acknowledge").click()
    confirm(one, "on my way")
    expect(issue).to_contain_text("Acknowledged by olaf")
    go(other, console, "#/issues")
    expect(other.locator("main li", has=other.get_by_text("ApplianceLost"))).to_contain_text("on my way")

    issue.get_by_role("button", name="Snooze").click()
    one.locator("dialog select").select_option("14400")
    confirm(one, "a disk is ordered")
    expect(issue).to_have_count(0)
    one.get_by_label("Also what is snoozed").check()
    expect(issue).to_contain_text("Snoozed by olaf until")
    issue.get_by_role("button", name="Wake").click()
    expect(said(one)).to_have_text("Awake again: ApplianceLost")
    expect(issue.get_by_role("button", name="Snooze")).to_be_visible()

    with one.expect_popup() as popup:
        issue.get_by_role("link", name="Runbook").click()
    expect(popup.value.locator("h1")).to_contain_text("ApplianceLost")
    assert not [rule["id"] for rule in Axe().run(popup.value).response["violations"] if rule["impact"] in SERIOUS]

    noc.boxes["lis-2"].launch()
    expect(issue).to_have_count(0)


def test_nobody_is_kept_waiting_by_an_appliance_that_hangs(noc, console, page):
    one = page("vera")
    pids = noc.boxes["mad-1"].session_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        go_on = one.goto(f"{console.url}/#/appliance/mad-1")
        assert go_on is None or go_on.ok
        expect(one.locator(".facts").first).to_contain_text("Heartbeat")
        expect(one.get_by_text("Asking the appliance…")).to_be_visible()
        expect(one.get_by_text("It does not speak for itself")).to_be_visible()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    expect(one.get_by_role("region", name="Devices")).to_be_visible()


def test_steering_that_is_gone_is_told_on_every_page_and_its_return_too(noc, console, page):
    one = page("vera")
    noc.replica.kill()
    banner = one.locator("#banner")
    expect(banner).to_contain_text("Steering does not answer; what you see of it is from")
    expect(one.locator(".tiles")).to_contain_text("of 3")
    one.goto(f"{console.url}/#/appliances")
    expect(banner).to_contain_text("Steering does not answer")
    noc.replica.start()
    expect(banner).to_be_empty()


def test_a_console_that_is_gone_is_told_and_the_page_goes_on_by_itself_when_it_is_back(console, page):
    one = page("vera")
    console.stop()
    expect(one.locator("#banner")).to_contain_text("The console does not answer since")
    console.start()
    expect(one.locator("#banner")).to_be_empty()
    expect(one.locator(".tiles")).to_contain_text("of 3")
