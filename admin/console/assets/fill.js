// The night: how far each appliance is with its order, and whether what was planned came true.
import {ask, bytes, h, moment, percent, redraw, state, table} from "/assets/parts.js";
import {fleet} from "/assets/store.js";

export function fill(place) {
  const shown = h("div", {}, h("p", {class: "waiting"}, "Asking the agents…"));
  place.append(h("h1", {}, "Fill night"), shown);

  async function draw() {
    try {
      const told = await ask("/api/fill");
      redraw(shown, plan(told.plan), h("h2", {}, "Appliances"), told.agents.length === 0
        ? h("p", {class: "empty"}, "The inventory names no agents (agent_metrics).")
        : table("Orders, by what the agents say", [
          {title: "Appliance", cell: (one) => h("a", {href: `#/appliance/${encodeURIComponent(one.id)}`}, one.id)},
          {title: "Site", cell: (one) => one.site, optional: true},
          {title: "Night", cell: (one) => one.night || "–", optional: true},
          {title: "Is", cell: (one) => (one.error ? state("bad", "silent") : state(one.is_behind ? "warning" : "well", one.is_behind ? `${one.phase}, behind` : one.phase))},
          {title: "Has", cell: (one) => (one.error ? "" : [h("progress", {max: Math.max(1, one.order_bytes), value: one.done_bytes, "aria-label": `${one.id} has`}), ` ${bytes(one.done_bytes)} of ${bytes(one.order_bytes)}`])},
          {title: "Failed", number: true, cell: (one) => (one.error ? "" : String(Object.values(one.failed ?? {}).reduce((sum, count) => sum + count, 0)))},
          {title: "Why", words: true, cell: (one) => one.error ?? one.reason ?? ""},
        ], told.agents));
    } catch (error) {
      redraw(shown, h("p", {class: "failure"}, error.message));
    }
  }

  function plan(told) {
    if (told.error) return h("p", {class: "empty"}, `No plan to compare with: ${told.error}.`);
    const actual = new Map();
    for (const row of fleet.rows.values()) {
      if (row.hits === null || !row.load) continue;
      const sum = actual.get(row.site) ?? [0, 0];
      actual.set(row.site, [sum[0] + row.hits * row.load, sum[1] + row.load]);
    }
    return h("section", {}, h("p", {}, `Plan of ${told.night}, version ${told.version}, applied by ${told.who} at ${moment(told.applied_at)}.`),
      table("Of the bytes of peak hours: predicted, and of what is sent now", [
        {title: "Site", cell: ([id]) => h("a", {href: `#/site/${encodeURIComponent(id)}`}, id)},
        {title: "Pledged before", number: true, cell: ([, one]) => percent(one.before)},
        {title: "Predicted by pledges", number: true, cell: ([, one]) => percent(one.after)},
        {title: "Held now", number: true, cell: ([id]) => (actual.has(id) ? percent(actual.get(id)[0] / actual.get(id)[1]) : "–")},
      ], Object.entries(told.sites)));
  }

  draw();
  const timer = setInterval(() => { if (!document.hidden) draw(); }, 3000);
  return {leave: () => clearInterval(timer)};
}
