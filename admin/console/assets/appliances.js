// All appliances, or a site's: filtered, sorted, chosen, acted on, taken along as CSV. Thousands of rows: a hundred at a
// time are in the page, and a row is drawn again only when it changed.
import {ask, bits, h, percent, redraw, state} from "/assets/parts.js";
import {fleet, sites} from "/assets/store.js";
import {buttons} from "/assets/acts.js";
import {charts} from "/assets/chart.js";

const PAGE = 100;
const BAD = ["bad", "warning"];
const COLUMNS = [
  {key: "id", title: "Appliance", of: (id) => id},
  {key: "site", title: "Site", of: (id, row) => row.site, optional: true},
  {key: "standing", title: "Standing", of: (id, row) => row.standing},
  {key: "load", title: "Sends", of: (id, row) => row.load, number: true},
  {key: "full", title: "Full", of: (id, row) => row.full, number: true},
  {key: "hits", title: "Held", of: (id, row) => row.hits ?? -1, number: true, optional: true},
  {key: "trouble", title: "Not well", of: (id, row) => row.trouble, optional: true},
];

export function appliances(place, _, query) {
  place.append(h("h1", {}, "Appliances"));
  return list(place, {state: query.get("state") ?? "all"});
}

export function site(place, id) {
  const known = sites().get(id);
  if (!known) {
    place.append(h("h1", {}, `Site ${id}`), h("p", {class: "empty"}, "There is no such site."));
    return {};
  }
  place.append(h("h1", {}, known.name === id ? `Site ${id}` : `${known.name} (${id})`), h("p", {class: "quiet"}, `Operator ${known.operator}, ${known.country ?? "country unknown"}`));
  const all = list(place, {site: id});
  const lines = charts(ask, {site: id}, fleet.me.prometheus);
  place.append(lines.element);
  return {change: all.change, leave: lines.leave};
}

function list(place, options) {
  const chosen = new Set();
  const drawn = new Map();
  let [by, down, most] = ["id", false, PAGE];
  let order = [];
  const words = h("input", {type: "search", name: "filter", placeholder: "id or site", "aria-keyshortcuts": "/", oninput: () => { most = PAGE; draw(); }});
  const kind = h("select", {name: "state", onchange: () => { most = PAGE; draw(); }},
    [["all", "all"], ["unwell", "not well"], ["serving", "serving"], ["resting", "resting"]].map(([value, text]) => h("option", {value}, text)));
  kind.value = ["unwell", "serving", "resting"].includes(options.state) ? options.state : "all";
  const acts = h("div", {class: "actions"});
  const caption = h("caption");
  const body = h("tbody");
  const all = h("input", {type: "checkbox", "aria-label": "Choose all that are shown", onchange: () => { for (const id of order.slice(0, most)) { if (all.checked) chosen.add(id); else chosen.delete(id); } draw(); }});
  const heads = COLUMNS.map((column) => h("th", {scope: "col", class: [column.number && "number", column.optional && "optional"].filter(Boolean).join(" ") || null},
    h("button", {type: "button", onclick: () => { [by, down] = [column.key, by === column.key ? !down : column.number ?? false]; draw(); }}, column.title)));
  const more = h("button", {type: "button", onclick: () => { most += 5 * PAGE; draw(); }}, "Show more");
  place.append(
    h("form", {class: "row", onsubmit: (event) => event.preventDefault()},
      h("label", {class: "wide"}, "Filter", words), h("label", {}, "Show", kind),
      h("button", {type: "button", onclick: () => save()}, "Save as CSV")),
    acts,
    h("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Appliances"}, h("table", {}, caption, h("thead", {}, h("tr", {}, h("th", {}, all), heads)), body)),
    h("p", {}, more));

  function matches(id, row) {
    if (options.site && row.site !== options.site) return false;
    if (kind.value === "unwell" && !BAD.includes(row.state)) return false;
    if (kind.value === "serving" && row.standing !== "serving") return false;
    if (kind.value === "resting" && row.state !== "resting") return false;
    const text = words.value.trim().toLowerCase();
    return !text || id.toLowerCase().includes(text) || row.site.toLowerCase().includes(text) || row.trouble.toLowerCase().includes(text);
  }

  function sorted() {
    const column = COLUMNS.find((one) => one.key === by);
    const keys = [...fleet.rows].filter(([id, row]) => matches(id, row)).map(([id, row]) => [column.of(id, row), id]);
    keys.sort(([one, a], [other, b]) => (one < other ? -1 : one > other ? 1 : a < b ? -1 : 1) * (down ? -1 : 1));
    return keys.map(([, id]) => id);
  }

  function draw() {
    order = sorted();
    for (const id of chosen) if (!fleet.rows.has(id)) chosen.delete(id);
    drawn.clear();
    body.replaceChildren(...order.slice(0, most).map((id) => line(id)));
    if (order.length === 0) body.append(h("tr", {}, h("td", {colspan: COLUMNS.length + 1}, fleet.rows.size ? "None of them is so." : "There are no appliances yet.")));
    heads.forEach((head, number) => {
      if (COLUMNS[number].key === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    more.hidden = order.length <= most;
    title();
  }

  function title() {
    caption.textContent = `${Math.min(most, order.length)} of ${order.length} shown${chosen.size ? `, ${chosen.size} chosen` : ""}`;
    all.checked = order.length > 0 && order.slice(0, most).every((id) => chosen.has(id));
    const focused = acts.contains(document.activeElement) ? document.activeElement.textContent : null;
    acts.replaceChildren(...buttons(() => [...chosen]));
    if (focused) [...acts.querySelectorAll("button")].find((one) => one.textContent === focused)?.focus();
  }

  function line(id) {
    const made = h("tr", {}, cells(id));
    drawn.set(id, made);
    return made;
  }

  function cells(id) {
    const row = fleet.rows.get(id);
    return [
      h("td", {}, h("input", {type: "checkbox", "aria-label": `Choose ${id}`, checked: chosen.has(id), onchange: (event) => { if (event.target.checked) chosen.add(id); else chosen.delete(id); title(); }})),
      h("td", {}, h("a", {href: `#/appliance/${encodeURIComponent(id)}`}, id)),
      h("td", {class: "optional"}, h("a", {href: `#/site/${encodeURIComponent(row.site)}`}, row.site)),
      h("td", {}, state(row.state, row.standing)),
      h("td", {class: "number"}, bits(row.load)), h("td", {class: "number"}, percent(row.full)),
      h("td", {class: "number optional"}, percent(row.hits)), h("td", {class: "words optional"}, row.trouble),
    ];
  }

  function save() {
    const quoted = (value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
    // A cell that begins like a formula would be one in a spreadsheet.
    const safe = (value) => quoted(typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : value);
    const names = ["site", "standing", "wish", "state", "load", "capacity", "full", "hits", "trouble"];
    const lines = [["id", ...names], ...order.map((id) => [id, ...names.map((name) => fleet.rows.get(id)[name])])];
    const link = h("a", {href: URL.createObjectURL(new Blob([lines.map((line) => line.map(safe).join(",")).join("\r\n") + "\r\n"], {type: "text/csv"})), download: "appliances.csv"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  draw();
  return {
    change(told) {
      if (told.all || told.gone) { draw(); return; }
      // Rows stay where they are while somebody reads: they are sorted anew when that is asked for.
      let isNew = false;
      for (const id of told.rows ?? []) {
        const there = drawn.get(id);
        if (there) redraw(there, ...cells(id));
        else if (!order.includes(id) && matches(id, fleet.rows.get(id))) isNew = true;
      }
      if (isNew) draw();
    },
  };
}
