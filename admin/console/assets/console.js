// The console's frame: who is here, which page is shown, what has to be known on every page.
import {ask, h, moment, say, trust} from "/assets/parts.js";
import {begin, fleet, watch} from "/assets/store.js";
import {overview} from "/assets/overview.js";
import {appliances, site} from "/assets/appliances.js";
import {appliance} from "/assets/appliance.js";
import {issues} from "/assets/issues.js";
import {fill} from "/assets/fill.js";
import {explain} from "/assets/explain.js";
import {purge} from "/assets/purge.js";
import {audit} from "/assets/audit.js";

/** By the first word after "#/". A page is made in `place`, and gives back what is called with changes; `leave` ends it. */
const PAGES = {"": overview, appliances, site, appliance, issues, fill, explain, purge, audit};

const main = document.getElementById("main");
let shown = {change: () => {}, leave: () => {}};

function show(isFirst) {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  shown.leave?.();
  const page = Object.hasOwn(PAGES, name) ? PAGES[name] : missing;
  main.replaceChildren();
  shown = page(main, rest[0] ?? "", new URLSearchParams(query)) ?? {};
  document.title = `${main.querySelector("h1")?.textContent ?? "OCA"} - OCA console`;
  for (const link of document.querySelectorAll("nav a")) {
    const own = link.getAttribute("href").replace(/^#\/?/, "");
    const at = {site: "appliances", appliance: "appliances"}[name] ?? name;
    if (own === at) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!isFirst) { main.focus(); scrollTo(0, 0); }
}

function missing(place) {
  place.append(h("h1", {}, "No such page"), h("p", {}, h("a", {href: "#/"}, "The fleet")));
}

function frame(change) {
  if (change.alerts || change.all) {
    const loud = fleet.alerts.filter((alert) => !alert.snoozed && !alert.acknowledged && !alert.inhibited).length;
    const count = document.getElementById("firing");
    count.textContent = loud;
    count.hidden = loud === 0;
  }
  if (change.sources || change.panic_since || change.all) banners();
}

function banners() {
  const told = [];
  if (fleet.lost_at !== null) {
    told.push(["bad", `The console does not answer since ${moment(fleet.lost_at)}: what you see is from then. It is tried again.`]);
  }
  for (const [name, source] of Object.entries(fleet.sources)) {
    if (source.error === null) continue;
    const since = source.heard_at ? `what you see of it is from ${moment(source.heard_at)}` : "nothing is known of it yet";
    told.push([name === "steering" ? "bad" : "", `${name === "steering" ? "Steering" : "Alertmanager"} does not answer; ${since}. (${source.error})`]);
  }
  if (fleet.panic_since !== null) {
    told.push(["", `Since ${moment(fleet.panic_since)} much of the fleet is silent at once: steering rather suspects its own network, and believes the last view.`]);
  }
  document.getElementById("banner").replaceChildren(...told.map(([kind, words]) => h("p", {class: `banner ${kind}`}, words)));
}

async function start() {
  try {
    fleet.me = await ask("/api/me");
    trust(fleet.me.csrf);
    document.getElementById("me").textContent = `${fleet.me.name} (${fleet.me.role})`;
    await begin();
  } catch (error) {
    if (error.status === 401) return;
    main.replaceChildren(h("p", {class: "failure"}, `${error.message} `, h("button", {type: "button", onclick: () => location.reload()}, "Try again")));
    return;
  }
  watch(frame);
  watch((change) => shown.change?.(change));
  frame({all: true});
  show(true);
  performance.mark("shown");
  addEventListener("hashchange", () => show(false));
  // The address names the page: jumping to the content must not change it.
  document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
  document.getElementById("leave").addEventListener("click", async () => {
    try { await ask("/logout", {}); } catch (error) { say(error.message); return; }
    location.assign("/login");
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, dialog");
    if (event.key === "/" && !typing) {
      const field = main.querySelector("input[type=search]");
      if (field) { event.preventDefault(); field.focus(); }
    }
  });
}

start();
