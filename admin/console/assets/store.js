// The fleet as the console sees it: asked for once, then changed by what server-sent events bring.
import {ask, Failed} from "/assets/parts.js";

export const fleet = {rows: new Map(), sites: new Map(), alerts: [], jobs: [], sources: {}, panic_since: null, me: null, ahead: 0, lost_at: null};

const listeners = new Set();
let version = 0;
let stream = null;
let waiting = null;
let retry = 0;
let changes = {};

/** `listener(change)` is called, at most once a frame, with what changed: {rows: Set of ids, sites, alerts, ...}. */
export function watch(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The console's clock, in seconds since 1970. */
export const now = () => Date.now() / 1000 + fleet.ahead;

export async function begin() {
  const whole = await ask("/api/fleet");
  version = whole.version;
  fleet.rows = new Map(Object.entries(whole.rows));
  fleet.sites = new Map(whole.sites.map((site) => [site.id, site]));
  for (const name of ["alerts", "jobs", "sources", "panic_since"]) fleet[name] = whole[name];
  fleet.ahead = whole.now - Date.now() / 1000;
  fleet.lost_at = null;
  tell({rows: new Set(fleet.rows.keys()), sites: true, alerts: true, jobs: true, sources: true, all: true});
  listen();
}

function listen() {
  stream?.close();
  if (document.hidden) return;
  const events = new EventSource(`/api/events?since=${version}`);
  stream = events;
  events.onopen = () => { if (fleet.lost_at !== null) { fleet.lost_at = null; tell({sources: true}); } };
  events.onmessage = (event) => take(JSON.parse(event.data));
  events.addEventListener("anew", () => { events.close(); again(0); });
  events.onerror = () => {
    if (fleet.lost_at === null) { fleet.lost_at = now(); tell({sources: true}); }
    if (events.readyState === EventSource.CLOSED) again(3000);
  };
}

// A browser keeps six connections to a server: pages that nobody sees leave them to those that are seen.
document.addEventListener("visibilitychange", () => {
  if (stream === null) return;
  stream.close();
  if (!document.hidden) again(0);
});

function again(pause) {
  clearTimeout(retry);
  retry = setTimeout(() => begin().catch((error) => {
    if (!(error instanceof Failed) || error.status !== 401) again(3000);
  }), pause);
}

function take(change) {
  version = change.version;
  fleet.ahead = change.now - Date.now() / 1000;
  const told = {};
  if (change.rows) {
    told.rows = new Set(Object.keys(change.rows));
    for (const [id, fields] of Object.entries(change.rows)) fleet.rows.set(id, {...fleet.rows.get(id), ...fields});
  }
  for (const id of change.gone ?? []) { fleet.rows.delete(id); told.gone = true; }
  if (change.sites) { fleet.sites = new Map(change.sites.map((site) => [site.id, site])); told.sites = true; }
  for (const name of ["alerts", "jobs", "sources", "panic_since"]) {
    if (name in change) { fleet[name] = change[name]; told[name] = true; }
  }
  tell(told);
}

function tell(change) {
  for (const [name, value] of Object.entries(change)) {
    changes[name] = value instanceof Set && changes[name] ? new Set([...changes[name], ...value]) : value;
  }
  waiting ??= requestAnimationFrame(() => {
    const told = changes;
    waiting = null;
    changes = {};
    for (const listener of [...listeners]) listener(told);
  });
}

const ORDER = ["well", "resting", "warning", "bad"];
export const worse = (one, other) => (ORDER.indexOf(one) > ORDER.indexOf(other) ? one : other);

/** Sites with the sums of their appliances, by id. */
export function sites() {
  const made = new Map();
  for (const [id, site] of fleet.sites) {
    made.set(id, {...site, appliances: 0, serving: 0, load: 0, capacity: 0, state: "well", troubles: []});
  }
  for (const [id, row] of fleet.rows) {
    const site = made.get(row.site);
    if (!site) continue;
    site.appliances += 1;
    site.load += row.load;
    if (row.standing === "serving") { site.serving += 1; site.capacity += row.capacity; }
    site.state = worse(row.state, site.state);
    if (row.trouble) site.troubles.push(`${id}: ${row.trouble}`);
  }
  for (const site of made.values()) if (site.appliances > 0 && site.serving === 0 && site.state !== "well") site.state = worse(site.state, "warning");
  return made;
}

/** What those of one operator may do. */
export const may = (role) => {
  const order = ["viewer", "operator", "admin"];
  return order.indexOf(fleet.me?.role) >= order.indexOf(role);
};
