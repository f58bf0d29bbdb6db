// What is done to appliances: drained, resumed, planned. Each asks why.
import {ask, confirm, h, iso, moment} from "/assets/parts.js";
import {fleet, may} from "/assets/store.js";

export function buttons(names, more = {}) {
  if (!may("operator")) return [h("p", {class: "quiet"}, "You may look; operators may act.")];
  const off = names().length === 0;
  return [
    h("button", {type: "button", disabled: off && !more.site, onclick: () => drain(names(), more.site)}, "Drain"),
    h("button", {type: "button", disabled: off && !more.site, onclick: () => resume(names(), more.site)}, "Resume"),
    h("button", {type: "button", disabled: off && !more.site, onclick: () => plan(names(), more.site)}, "Plan maintenance"),
  ];
}

const which = (names, site) => (site ? {site} : {appliances: names});
const called = (names, site) => (site ? `all of site ${site}` : names.length > 4 ? `${names.length} appliances` : names.join(", "));

export function drain(names, site) {
  confirm(`Drain ${called(names, site)}`, "No new viewers are sent there, and those that are there leave.", null, "Drain", async ({why, force}) => {
    await ask("/api/drain", {...which(names, site), why, force});
    return `Draining: ${called(names, site)}`;
  });
}

export function resume(names, site) {
  confirm(`Resume ${called(names, site)}`, "Serves again as soon as it is well.", null, "Resume", async ({why}) => {
    await ask("/api/resume", {...which(names, site), why});
    return `Serving again: ${called(names, site)}`;
  });
}

export function plan(names, site) {
  const next = new Date(Math.ceil(Date.now() / 3600000) * 3600000);
  const fields = h("div", {class: "actions"},
    h("label", {}, "From", h("input", {type: "datetime-local", name: "start", required: true, value: iso(next)})),
    h("label", {}, "To", h("input", {type: "datetime-local", name: "stop", required: true, value: iso(new Date(+next + 7200000))})));
  const words = "Drained from then until then, and back by itself. It begins once the rest of the site can carry the load.";
  confirm(`Maintenance of ${called(names, site)}`, words, fields, "Plan", async ({why, force, start, stop}) => {
    const [from, to] = [start, stop].map((text) => new Date(text).getTime() / 1000);
    await ask("/api/maintenance", {...which(names, site), why, force, start: from, stop: to});
    return `Planned: ${called(names, site)} from ${moment(from)} to ${moment(to)}`;
  });
}

export function cancel(name, start) {
  confirm(`Cancel maintenance of ${name}`, "What is under way ends, and it serves again.", null, "Cancel it", async ({why}) => {
    await ask("/api/maintenance/cancel", {appliance: name, start, why});
    return `Cancelled: maintenance of ${name}`;
  });
}

/** Windows that are not over, of all or of one appliance. */
export function windows(now, only = null) {
  const found = [];
  for (const [id, row] of fleet.rows) {
    if (only !== null && id !== only) continue;
    for (const one of row.maintenance) if (one.stop > now) found.push({id, row, ...one});
  }
  return found.sort((one, other) => one.start - other.start);
}
