// Lines over time, drawn as SVG: {title, unit, begin, end, step, lines: [{name, points: [[moment, value], ...]}]}.
import {bits, h, percent, seconds} from "/assets/parts.js";

const UNITS = {"bit/s": bits, ratio: percent, seconds, count: (value) => String(Math.round(value))};
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [600, 190, 64, 22, 8];

export function chart(panel) {
  const words = UNITS[panel.unit] ?? String;
  const lines = panel.lines.filter((line) => line.points.length > 0);
  const figure = h("figure", {}, h("figcaption", {}, panel.title));
  if (lines.length === 0) {
    figure.append(h("p", {class: "quiet"}, "Nothing was measured in this time."));
    return figure;
  }
  const [first, last] = [panel.begin, panel.end];
  const most = panel.unit === "ratio" && panel.id !== "errors"
    ? 1
    : nice(Math.max(...lines.flatMap((line) => line.points.map((point) => point[1]))) || 1);
  const x = (at) => LEFT + ((at - first) / Math.max(1, last - first)) * (WIDTH - LEFT - 8);
  const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
  const svg = h("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true"});
  for (const share of [0, 0.5, 1]) {
    svg.append(
      h("line", {class: "grid", x1: LEFT, x2: WIDTH - 8, y1: y(share * most), y2: y(share * most)}),
      h("text", {x: LEFT - 6, y: y(share * most) + 4, "text-anchor": "end"}, words(share * most)));
  }
  for (const share of [0, 0.5, 1]) {
    const at = first + share * (last - first);
    svg.append(h("text", {x: x(at), y: HEIGHT - 4, "text-anchor": ["start", "middle", "end"][share * 2]}, clock(at, last - first)));
  }
  lines.forEach((line, place) => svg.append(h("path", {
    class: `c${place % 6}`,
    d: line.points.map(([at, value], place) => {
      // A gap in what was measured is a gap; a point alone is a dot.
      const [before, after] = [place - 1, place + 1].map((near) => Math.abs((line.points[near]?.[0] ?? Infinity) - at) < 2.5 * panel.step);
      const spot = `${x(at).toFixed(1)} ${y(Math.min(value, most)).toFixed(1)}`;
      return before ? `L${spot}` : after ? `M${spot}` : `M${spot}h0`;
    }).join(""),
  })));
  const key = lines.map((line, place) => h("li", {class: `c${place % 6}`}, h("span", {class: "state"}, `${line.name}: ${words(line.points.at(-1)[1])}`)));
  const mark = h("line", {class: "grid", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"});
  svg.append(mark);
  svg.addEventListener("pointermove", (event) => {
    const place = svg.getBoundingClientRect();
    const at = first + (((event.clientX - place.left) / place.width * WIDTH - LEFT) / (WIDTH - LEFT - 8)) * (last - first);
    mark.setAttribute("visibility", "visible");
    mark.setAttribute("x1", x(at)); mark.setAttribute("x2", x(at));
    lines.forEach((line, number) => {
      const near = line.points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      key[number].firstChild.textContent = `${line.name}: ${words(near[1])} at ${clock(near[0], last - first)}`;
    });
  });
  figure.append(svg, h("ul", {class: "legend"}, key));
  return figure;
}

function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most) ?? most;
}

function clock(at, span) {
  const when = new Date(at * 1000);
  return span > 2 * 86400 ? `${when.getDate()}.${when.getMonth() + 1}. ${when.toTimeString().slice(0, 5)}` : when.toTimeString().slice(0, 5);
}

/** Charts of a fleet, a site or an appliance, asked again every half minute while they are seen. `query` names which. */
export function charts(ask, query, isThere) {
  const place = h("div", {class: "charts"}, h("p", {class: "waiting"}, "Asking Prometheus…"));
  const span = h("select", {name: "span", onchange: () => draw()}, [["1h", "an hour"], ["6h", "6 hours"], ["24h", "a day"], ["7d", "a week"]].map(([value, words]) => h("option", {value}, words)));
  async function draw() {
    try {
      const panels = await ask(`/api/charts?${new URLSearchParams({...query, span: span.value})}`);
      place.replaceChildren(...panels.map(chart));
    } catch (error) {
      place.replaceChildren(h("p", {class: "failure"}, error.message));
    }
  }
  let timer = 0;
  if (isThere) {
    draw();
    timer = setInterval(() => { if (!document.hidden) draw(); }, 30000);
  } else {
    place.replaceChildren(h("p", {class: "empty"}, "There is no [prometheus] in the console's settings: no charts."));
  }
  const element = h("section", {}, h("h2", {}, "Charts"), isThere && h("p", {}, h("label", {}, "Of the last ", span)), place);
  return {element, leave: () => clearInterval(timer)};
}
