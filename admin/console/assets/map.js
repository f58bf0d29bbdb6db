// The world, and sites on it: coloured and shaped by the worst of what is there. No tiles, no server of others.
import {h, redraw} from "/assets/parts.js";
import {WORLD} from "/assets/world.js";

const LEAST = 30; // Degrees that are shown at least.
const RADIUS = 5; // Pixels.
const DRAW = {
  well: (r) => ({tag: "circle", r}),
  resting: (r) => ({tag: "circle", r}),
  warning: (r) => ({tag: "polygon", points: `0,${-1.5 * r} ${1.5 * r},0 0,${1.5 * r} ${-1.5 * r},0`}),
  bad: (r) => ({tag: "rect", x: -1.4 * r, y: -1.4 * r, width: 2.8 * r, height: 2.8 * r}),
};

/** Gives back {element, show(sites)}. */
export function map() {
  const spots = h("g", {});
  const svg = h("svg", {role: "group", "aria-label": "Sites on a map", preserveAspectRatio: "xMidYMid meet"}, h("path", {class: "land", d: WORLD}), spots);
  let box = null;
  let known = new Map();

  function look(next) {
    box = next;
    svg.setAttribute("viewBox", next.join(" "));
    draw();
  }

  function zoom(by) {
    const [x, y, width, height] = box;
    look([x + width * (1 - by) / 2, y + height * (1 - by) / 2, width * by, height * by]);
  }

  function fit() {
    const places = [...known.values()].map((site) => [site.longitude + 180, 90 - site.latitude]);
    if (places.length === 0) return look([0, 5, 360, 145]);
    const [xs, ys] = [0, 1].map((axis) => places.map((place) => place[axis]));
    const width = Math.min(360, Math.max(LEAST, 1.3 * (Math.max(...xs) - Math.min(...xs))));
    const height = Math.min(170, Math.max(LEAST / 2, 1.3 * (Math.max(...ys) - Math.min(...ys))));
    look([(Math.max(...xs) + Math.min(...xs) - width) / 2, (Math.max(...ys) + Math.min(...ys) - height) / 2, width, height]);
  }

  function draw() {
    const {width, height} = svg.getBoundingClientRect();
    // Spots are as large on a phone as on a wall. Before there is a layout, as on a desk.
    const r = (width ? Math.max(box[2] / width, box[3] / height) : box[2] / 800) * RADIUS;
    const worst = ["well", "resting", "warning", "bad"];
    const ordered = [...known.values()].sort((one, other) => worst.indexOf(one.state) - worst.indexOf(other.state));
    redraw(spots, ...ordered.map((site) => {
      const {tag, ...shape} = DRAW[site.state](r);
      const words = `${site.name}: ${site.serving} of ${site.appliances} serve${site.troubles.length ? `; ${site.troubles.join("; ")}` : ""}`;
      const link = document.createElementNS("http://www.w3.org/2000/svg", "a");
      link.setAttribute("href", `#/site/${encodeURIComponent(site.id)}`);
      link.setAttribute("aria-label", words);
      link.setAttribute("class", site.state);
      // By keyboard, sites that are well are reached through the table: nobody tabs through a thousand spots.
      if (site.state !== "warning" && site.state !== "bad") link.setAttribute("tabindex", "-1");
      link.setAttribute("transform", `translate(${site.longitude + 180} ${90 - site.latitude})`);
      link.append(h(tag, {class: "site", ...shape}), h("title", {}, words));
      return link;
    }));
  }

  const button = (words, label, act) => h("button", {type: "button", "aria-label": label, onclick: act}, words);
  const element = h("div", {class: "map"}, svg, h("div", {class: "zoom"},
    button("+", "Closer", () => zoom(1 / 1.5)), button("−", "Farther", () => zoom(1.5)), button("All", "All sites", fit)));
  let drawn = "";
  new ResizeObserver(() => { if (box) draw(); }).observe(svg);
  return {
    element,
    show(sites) {
      const picture = [...sites.values()].map((site) => `${site.id} ${site.state} ${site.serving} ${site.latitude} ${site.troubles}`).join("\n");
      if (picture === drawn) return;
      drawn = picture;
      known = sites;
      if (box === null || box[2] === 360) fit();
      else draw();
    },
  };
}
