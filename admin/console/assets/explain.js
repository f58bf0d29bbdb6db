// The decision that a viewer would get now, with all its terms.
import {ask, h, percent, table} from "/assets/parts.js";

export function explain(place, _, query) {
  const answer = h("div");
  const field = (name, title, example, isNeeded) => h("label", {class: name === "path" ? "wide" : null}, title,
    h("input", {name, placeholder: example, required: isNeeded, value: query.get(name) ?? "", autocomplete: "off", spellcheck: "false"}));
  const form = h("form", {class: "row", onsubmit: (event) => { event.preventDefault(); draw(); }},
    field("client", "Viewer's address", "198.51.100.7", true), field("path", "Path", "/titles/film/master.m3u8", true),
    field("current", "Plays from (optional)", "lis-1", false), h("button", {class: "main"}, "Explain"));
  place.append(h("h1", {}, "Explain a decision"), form, answer);

  async function draw() {
    answer.replaceChildren(h("p", {class: "waiting", role: "status"}, "Asking steering…"));
    try {
      const told = await ask(`/api/explain?${new URLSearchParams(new FormData(form))}`);
      const ms = (value) => value.toFixed(1);
      answer.replaceChildren(h("div", {},
        h("p", {role: "status"}, `Answer: ${told.answer.map((one) => one.id).join(", ") || "nobody"} (${told.reason}, ${told.fallback}).`),
        told.ranked.length > 0 && table("Ranked, by milliseconds to the first byte", [
          {title: "Appliance", cell: (one) => h("a", {href: `#/appliance/${encodeURIComponent(one.appliance)}`}, one.appliance)},
          {title: "Site", cell: (one) => one.site}, {title: "By", cell: (one) => one.proximity},
          {title: "Cost", number: true, cell: (one) => ms(one.cost)}, {title: "Way", number: true, cell: (one) => ms(one.rtt)},
          {title: "Fetching", number: true, cell: (one) => ms(one.fetch)}, {title: "Load", number: true, cell: (one) => ms(one.load)},
          {title: "Held", number: true, cell: (one) => percent(one.held)}, {title: "Full", number: true, cell: (one) => percent(one.utilisation)},
        ], told.ranked),
        told.rejected.length > 0 && table("Left out", [
          {title: "Appliance", cell: (one) => h("a", {href: `#/appliance/${encodeURIComponent(one.appliance)}`}, one.appliance)},
          {title: "Site", cell: (one) => one.site}, {title: "By", cell: (one) => one.proximity}, {title: "Why", cell: (one) => one.why},
        ], told.rejected),
        h("details", {}, h("summary", {}, "Everything, as JSON"), h("pre", {class: "scroll", tabindex: 0}, JSON.stringify(told, null, 2)))));
    } catch (error) {
      answer.replaceChildren(h("p", {class: "failure", role: "alert"}, error.message));
    }
  }

  if (query.get("client") && query.get("path")) draw();
  return {};
}
