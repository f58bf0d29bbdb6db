"""`python -m tests.bench.console`: the NOC's console with 2,000 appliances, in a real browser (needs chromium).

A real steering hears 2,000 simulated appliances, whose loads go up and down with every heartbeat, and a real console
watches it. Measured: how soon a page is there in a browser that knows nothing yet (first contentful paint, and the mark
that the console sets once the whole fleet is drawn), whether pages that are watched stutter (gaps between frames, tasks
that are longer than the 50 ms after which people notice), and what looking on costs the console.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from admin.demo.smoke import BROWSER_ARGUMENTS, find_browser
from admin.errors import MachineError
from tests.bench import machine
from tests.bench.report import median, reached, table
from tests.doubles.console import PASSWORD, Console
from tests.doubles.steering import SECRET, Replica, appliance, site

_BEAT = 5.0
_FIRST_PAINT_MS = 1500.0
_JANK_MS = 50.0
_PATIENCE = 60.0
_WATCH = """async (seconds) => {
  const long = [], gaps = [];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)));
  observer.observe({type: "longtask"});
  const ends = performance.now() + 1000 * seconds;
  let before = performance.now();
  while (performance.now() < ends) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - before);
    before = now;
  }
  observer.disconnect();
  gaps.sort((one, other) => one - other);
  return {long, frames: gaps.length, p99: gaps[Math.floor(gaps.length * 0.99)], worst: gaps.at(-1)};
}"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.console", description=__doc__.split("\n\n")[0])
    parser.add_argument("--appliances", type=int, default=2000, help="default %(default)s, ten at a site")
    parser.add_argument("--rounds", type=int, default=9, help="page loads; default %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="to watch each page; default %(default)s")
    given = parser.parse_args()
    try:
        browser_path = find_browser()
    except MachineError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    for name, value in machine.described().items():
        print(f"{name:12} {value}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oca-bench-")))
        names = [f"s{number // 10}-{number % 10}" for number in range(given.appliances)]
        replica = Replica(folder / "steering", _fleet(names))
        stack.callback(replica.kill)
        replica.start(patience={"rise": 1, "ramp": 1})
        stack.enter_context(_speaking(replica, names))
        console = Console(folder / "console", f"http://127.0.0.1:{replica.admin_port}")
        stack.callback(console.kill)
        console.start()
        person = console.person("vera")
        print(f"\n{given.appliances} appliances; waiting until all of them serve")
        while not all(row["standing"] == "serving" for row in person.get("/api/fleet").json()["rows"].values()):
            time.sleep(1)
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=browser_path, args=list(BROWSER_ARGUMENTS))
        stack.callback(browser.close)
        _loads(browser, console, given.rounds)
        _watched(browser, console, given.seconds)
        _costs(console, given.seconds)
    return 0


def _fleet(names: list[str]) -> dict[str, list[dict[str, Any]]]:
    rng = random.Random(7)
    sites = sorted({name.partition("-")[0] for name in names})
    return {
        "operator": [{"id": "isp"}],
        "site": [site(one, "isp", rng.uniform(-40, 60), rng.uniform(-170, 170), "PT") for one in sites],
        "appliance": [appliance(name, name.partition("-")[0]) for name in names],
    }


@contextlib.contextmanager
def _speaking(replica: Replica, names: list[str]) -> Any:
    """All of them, spread evenly over five seconds, over one connection."""
    over = threading.Event()

    def speak() -> None:
        rng = random.Random(11)
        loads = {name: rng.uniform(1e9, 9e9) for name in names}
        connection = http.client.HTTPConnection("127.0.0.1", replica.fleet_port, timeout=30)
        began = time.monotonic()
        for number, name in zip(itertools.count(), itertools.cycle(names)):
            due = began + number * _BEAT / len(names)
            if over.wait(max(0.0, due - time.monotonic())):
                break
            loads[name] = min(9e9, max(0.0, loads[name] + rng.uniform(-3e8, 3e8)))
            told = {
                "appliance": name,
                "boot": "bench",
                "sequence": number + 1,
                "sent_at": time.time(),
                "ready": True,
                "link_bps": 10_000_000_000,
                "egress_bps": int(loads[name]),
                "connections": 10,
                "hit_ratio": 0.9,
            }
            headers = {"X-Appliance": name, "Authorization": f"Bearer {SECRET}"}
            connection.request("POST", "/v1/heartbeat", json.dumps(told).encode(), headers)
            connection.getresponse().read()
        connection.close()

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _entered(browser: Browser, console: Console) -> Page:
    """A new browser, as far as caches go, with somebody logged in."""
    page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
    page.goto(f"{console.url}/login")
    page.fill("#name", "vera")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url(f"{console.url}/")
    page.goto("about:blank")
    return page


def _loads(browser: Browser, console: Console, rounds: int) -> None:
    rows = []
    for where in ("", "appliances"):
        first, whole = [], []
        for _ in range(rounds):
            page = _entered(browser, console)
            # Nothing that was fetched for the log-in is used again.
            page.context.new_cdp_session(page).send("Network.clearBrowserCache")
            page.goto(f"{console.url}/#/{where}")
            whole.append(_mark(page, "shown"))
            first.append(_mark(page, "first-contentful-paint"))
            page.context.close()
        for what, taken in (("first contentful paint", first), ("whole fleet drawn", whole)):
            target = f"<= {_FIRST_PAINT_MS:.0f} ms {reached(max(taken), _FIRST_PAINT_MS)}"
            rows.append((where or "fleet", what, f"{median(taken):.0f} ms", f"{max(taken):.0f} ms", target))
    print(f"\n{rounds} loads of each page, nothing cached\n")
    print(table(("page", "what", "median", "worst", "target (worst)"), rows))


def _mark(page: Page, name: str) -> float:
    """Milliseconds since the page was asked for. Polled from outside: the page's policy lets no string be evaluated."""
    began = time.monotonic()
    while time.monotonic() - began < _PATIENCE:
        if (at := page.evaluate(f"performance.getEntriesByName('{name}')[0]?.startTime ?? null")) is not None:
            return float(at)
        page.wait_for_timeout(20)
    raise SystemExit(f"bench: the page did not come to {name!r} within {_PATIENCE:.0f} s")


def _watched(browser: Browser, console: Console, seconds: float) -> None:
    rows = []
    for where in ("", "appliances"):
        page = _entered(browser, console)
        page.goto(f"{console.url}/#/{where}")
        _mark(page, "shown")
        seen = page.evaluate(_WATCH, seconds)
        longest = max(seen["long"], default=0.0)
        target = f"<= {_JANK_MS:.0f} ms {reached(longest, _JANK_MS)}"
        rows.append((where or "fleet", f"{seen['frames']}", f"{seen['p99']:.0f} ms", f"{longest:.0f} ms", target))
        page.context.close()
    print(f"\n{seconds:.0f} s of each page, watched while a fifth of the fleet changes each second\n")
    print(table(("page", "frames", "gap p99", "longest task", "target (task)"), rows))


def _costs(console: Console, seconds: float) -> None:
    """Of the console's process, with watchers that only listen."""
    rows = []
    for watchers in (0, 1, 50):
        person = console.person("vera")
        version = person.get("/api/fleet").json()["version"]
        streams = [person.events(version) for _ in range(watchers)]
        came = [0] * watchers
        threads = [threading.Thread(target=_drained, args=(one, came, place)) for place, one in enumerate(streams)]
        for thread in threads:
            thread.start()
        before, began = machine.cpu_seconds(console.pid), time.monotonic()
        time.sleep(seconds)
        spent, taken = machine.cpu_seconds(console.pid) - before, time.monotonic() - began
        for one in streams:
            one.close()
        for thread in threads:
            thread.join()
        each = f"{came[0] / taken / 1000:.1f} kB/s" if watchers else "-"
        rows.append((str(watchers), f"{100 * spent / taken:.1f} % of a core", each))
    print(f"\nWhat the console costs, each over {seconds:.0f} s\n")
    print(table(("watchers", "processor", "to each"), rows))


def _drained(events: Any, came: list[int], place: int) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        while line := events.answer.readline():
            came[place] += len(line)


if __name__ == "__main__":
    sys.exit(main())
