// One appliance: what steering believes, what it says itself, where players were sent, what was ordered.
import {ago, ask, bits, bytes, h, moment, percent, redraw, state, table} from "/assets/parts.js";
import {fleet, may, now} from "/assets/store.js";
import {buttons, cancel, windows} from "/assets/acts.js";
import {charts} from "/assets/chart.js";

const LOUD = {WARNING: "warning", ERROR: "bad", CRITICAL: "bad"};
const proven = (member) => {
  if (!member.proof) return "not made yet";
  const by = `${moment(member.proof.at)} by ${member.proof.by || "steering"}`;
  return member.proof.failed.length ? `failed: ${member.proof.failed.join(", ")}; ${by}` : `passed; ${by}`;
};
const signed = (offset) => (Math.abs(offset) < 0.05 ? "0.0" : `${offset > 0 ? "+" : ""}${offset.toFixed(1)}`);

export function appliance(place, id) {
  const row = fleet.rows.get(id);
  if (!row) {
    place.append(h("h1", {}, `Appliance ${id}`), h("p", {class: "empty"}, "The inventory has no such appliance."));
    return {};
  }
  const facts = h("div", {}, h("p", {class: "waiting"}, "Asking steering…"));
  const box = h("div", {}, h("p", {class: "waiting"}, "Asking the appliance…"));
  const decisions = h("div");
  const changes = h("div");
  const planned = h("div");
  const head = h("p", {});
  const log = h("div");
  const lines = charts(ask, {appliance: id}, fleet.me.prometheus);
  place.append(
    h("h1", {}, `Appliance ${id}`), head, h("div", {class: "actions"}, buttons(() => [id])),
    h("div", {class: "columns"},
      h("section", {}, h("h2", {}, "As steering sees it"), facts, h("h2", {}, "Devices"), box),
      h("section", {}, h("h2", {}, "Maintenance"), planned, h("h2", {}, "Sent here lately"), decisions, h("h2", {}, "Ordered"), changes)),
    lines.element, h("section", {}, h("h2", {}, "Log"), log));

  function top() {
    const now_ = fleet.rows.get(id);
    if (!now_) { redraw(head, "It is not in the inventory any more."); return; }
    redraw(head, state(now_.state, now_.standing), now_.trouble ? `: ${now_.trouble}` : "", " at ", h("a", {href: `#/site/${encodeURIComponent(now_.site)}`}, now_.site));
    const soon = windows(now(), id);
    redraw(planned, soon.length === 0 ? h("p", {class: "quiet"}, "None is planned.") : h("ul", {class: "list"}, soon.map((one) => h("li", {},
      `${moment(one.start)} to ${moment(one.stop)}${one.forced ? ", forced" : ""}${one.row.resting && one.start <= now() ? ", under way" : ""} `,
      may("operator") && h("button", {type: "button", onclick: () => cancel(id, one.start)}, "Cancel")))));
  }

  async function steering() {
    try {
      const told = await ask(`/api/appliances/${encodeURIComponent(id)}`);
      const member = told.member;
      const beat = member.heartbeat;
      redraw(facts, h("dl", {class: "facts"}, [
        ["Standing", `${member.standing} since ${moment(member.since)}`],
        ["Heartbeat", member.heard === null ? "never" : `${ago(member.heard)} ago${member.from_snapshot ? " (before steering started anew)" : ""}`],
        ["Wanted", member.wish],
        ["Sends", `${bits(member.egress_bps)} of ${bits(member.capacity_bps)}; ${percent(member.utilisation)} full, by what is scarcest`],
        ["Held of what is asked for", percent(member.hit_ratio)],
        ["Holds", `${member.holdings.renditions} renditions`],
        ["Clock", `${signed(member.clock_offset)} s${member.is_clock_off ? ": off" : ""}`],
        ["Turn-up checks", proven(member)],
        ["Address", member.url],
        ...(beat ? [
          ["Says", beat.ready ? "it is ready" : `it is not ready: ${(beat.reasons ?? []).join("; ") || "no reason"}`],
          ["Connections", String(beat.connections ?? 0)], ["Processors", percent(beat.cpu)], ["Health", percent(beat.health)], ["Software", beat.version || "–"],
        ] : []),
      ].map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
      redraw(decisions, told.decisions.length === 0 ? h("p", {class: "quiet"}, "None of the last 4,096 decisions led here.") : table("Of the last decisions", [
        {title: "At", cell: (one) => moment(one.at)}, {title: "Asked for", cell: (one) => one.content, words: true},
        {title: "By", cell: (one) => one.way.replace("_", " ")}, {title: "Answered", cell: (one) => one.answer.join(", "), words: true},
      ], told.decisions.slice(0, 10)));
      redraw(changes, told.changes.length === 0 ? h("p", {class: "quiet"}, "Nothing.") : h("ul", {class: "list"}, told.changes.slice(0, 10).map((one) => h("li", {},
        `${moment(one.at)} ${one.who}: ${one.change.type}${one.change.wish ? ` ${one.change.wish}` : ""} (${one.why})`))));
    } catch (error) {
      redraw(facts, h("p", {class: "failure"}, error.message));
    }
  }

  async function itself() {
    try {
      const told = await ask(`/api/appliances/${encodeURIComponent(id)}/box`);
      redraw(box,
        table("Devices", [
          {title: "Device", cell: (one) => one.path}, {title: "Tier", cell: (one) => one.tier},
          {title: "Standing", cell: (one) => state({online: "well", failing: "warning"}[one.standing] ?? "bad", one.standing)},
          {title: "Used", number: true, cell: (one) => `${bytes(one.used_bytes)} of ${bytes(one.capacity_bytes)}`},
          {title: "Why", words: true, cell: (one) => one.reason || one.detail || ""},
        ], told.devices),
        h("dl", {class: "facts"}, [
          ["Objects", String(told.objects)], ["Up since", moment(told.started_at)], ["Fetches under way", String(told.flights)],
          ["Sources", told.sources.map((one) => `${one.name}: ${one.breaker === "closed" ? "well" : one.breaker}`).join(", ") || "–"],
        ].map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
    } catch (error) {
      redraw(box, h("p", {class: "failure"}, `It does not speak for itself: ${error.message}`));
    }
  }

  async function logged() {
    const button = h("button", {type: "button", onclick: () => logged()}, "Read it again");
    try {
      const told = await ask(`/api/appliances/${encodeURIComponent(id)}/logs`);
      redraw(log, button, h("pre", {class: "scroll log", tabindex: 0, "aria-label": "Log"}, told.lines.length === 0 ? "Nothing." : told.lines.map((one) => h("span", {class: LOUD[one.level] ?? null},
        `${moment(one.at)} ${one.process}[${one.pid}] ${one.level} ${one.text}\n`))));
      log.lastChild.scrollTop = log.lastChild.scrollHeight;
    } catch (error) {
      redraw(log, h("p", {class: "failure"}, error.message), button);
    }
  }

  top();
  logged();
  steering();
  itself();
  const timers = [setInterval(() => { if (!document.hidden) steering(); }, 5000), setInterval(() => { if (!document.hidden) itself(); }, 10000)];
  return {change: (told) => { if (told.rows?.has(id) || told.gone) top(); }, leave: () => { timers.forEach(clearInterval); lines.leave(); }};
}
