// The fleet at a glance: sums, the map, what is not well.
import {ask, bits, h, moment, percent, redraw, state} from "/assets/parts.js";
import {fleet, now, sites} from "/assets/store.js";
import {map} from "/assets/map.js";
import {charts} from "/assets/chart.js";
import {windows} from "/assets/acts.js";

const MOST = 50;

export function overview(place) {
  const tiles = h("dl", {class: "tiles"});
  const world = map();
  const unwell = h("div");
  const planned = h("div");
  const lines = charts(ask, {}, fleet.me.prometheus);
  place.append(
    h("h1", {}, "Fleet"), tiles,
    h("div", {class: "columns"},
      h("section", {"aria-label": "Map"}, world.element, h("ul", {class: "legend"},
        h("li", {}, state("well", "all serve")), h("li", {}, state("resting", "some rest, as ordered")),
        h("li", {}, state("warning", "something is not well")), h("li", {}, state("bad", "something is lost")))),
      h("section", {}, h("h2", {}, "Not well"), unwell, h("h2", {}, "Maintenance"), planned)),
    lines.element);

  function draw() {
    const known = sites();
    let [load, capacity, serving] = [0, 0, 0];
    for (const site of known.values()) { load += site.load; capacity += site.capacity; serving += site.serving; }
    const troubled = [...fleet.rows].filter(([, row]) => row.trouble);
    redraw(tiles, ...[
      ["Sites", known.size], ["Appliances that serve", `${serving} of ${fleet.rows.size}`],
      ["To viewers", bits(load)], ["Of what they can", capacity ? percent(load / capacity) : "–"], ["Not well", troubled.length],
    ].map(([words, value]) => h("div", {}, h("dt", {}, words), h("dd", {}, String(value)))));
    world.show(known);
    troubled.sort(([, one], [, other]) => (one.state === other.state ? 0 : one.state === "bad" ? -1 : 1));
    redraw(unwell, troubled.length === 0
      ? h("p", {class: "empty"}, fleet.rows.size ? "All is well." : "The inventory has no appliances yet. oca-steering's inventory file, or POST /v1/changes, declares them.")
      : h("ul", {class: "list"}, troubled.slice(0, MOST).map(([id, row]) => h("li", {},
          state(row.state, ""), h("a", {href: `#/appliance/${encodeURIComponent(id)}`}, id), ` at ${row.site}: ${row.trouble}`)),
          troubled.length > MOST && h("li", {}, h("a", {href: "#/appliances?state=unwell"}, `and ${troubled.length - MOST} more`))));
    const soon = windows(now()).slice(0, 10);
    redraw(planned, soon.length === 0
      ? h("p", {class: "quiet"}, "None is planned.")
      : h("ul", {class: "list"}, soon.map((one) => h("li", {}, h("a", {href: `#/appliance/${encodeURIComponent(one.id)}`}, one.id), `: ${moment(one.start)} to ${moment(one.stop)}${one.row.resting ? ", under way" : ""}`))));
  }

  draw();
  return {change: (told) => { if (told.rows || told.sites || told.gone) draw(); }, leave: lines.leave};
}
