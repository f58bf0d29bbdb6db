// Have the fleet forget, and see how far that is.
import {ask, h, moment, redraw, say, state, table} from "/assets/parts.js";
import {fleet, may} from "/assets/store.js";

export function purge(place) {
  const all = h("div");
  const wrong = h("p", {class: "failure", role: "alert", hidden: true});
  const form = h("form", {class: "row", onsubmit: async (event) => {
    event.preventDefault();
    const said = Object.fromEntries(new FormData(form));
    wrong.hidden = true;
    try {
      const told = await ask("/api/purge", {path: said.path, is_prefix: said.kind === "prefix", site: said.site || null, why: said.why});
      say(`Purging: ${said.path}${told.untold ? ` (${told.untold} appliances have no address in the inventory)` : ""}`);
      form.reset();
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
  }},
  h("label", {class: "wide"}, "Path", h("input", {name: "path", required: true, pattern: "/.*", placeholder: "/titles/film/", title: "Begins with /"})),
  h("label", {}, "Is", h("select", {name: "kind"}, h("option", {value: "object"}, "one object"), h("option", {value: "prefix"}, "the beginning of many"))),
  h("label", {}, "Where", h("select", {name: "site"}, h("option", {value: ""}, "everywhere"), [...fleet.sites.keys()].map((id) => h("option", {value: id}, id)))),
  h("label", {class: "wide"}, "Why", h("input", {name: "why", required: true, maxlength: 500})),
  h("button", {class: "main"}, "Purge"));
  place.append(h("h1", {}, "Purge"), may("operator") ? form : h("p", {class: "quiet"}, "You may look; operators may purge."), wrong, all);

  function draw() {
    redraw(all, fleet.jobs.length === 0 ? h("p", {class: "empty"}, "Nothing was purged since the console started.") : table("Purges, the latest first", [
      {title: "Path", words: true, cell: (job) => job.about}, {title: "By", cell: (job) => `${job.who}, ${moment(job.begun_at)}`},
      {title: "Appliances", cell: (job) => [h("progress", {max: job.total, value: job.done, "aria-label": `Purge of ${job.about}`}), ` ${job.done} of ${job.total}`]},
      {title: "Objects", number: true, cell: (job) => String(job.purged)},
      {title: "", words: true, cell: (job) => (job.ended_at === null ? "under way" : job.failures === 0 ? state("well", "done") : [state("bad", `${job.failures} not reached: purge again when they are back`), h("ul", {}, Object.entries(job.failed).slice(0, 20).map(([id, words]) => h("li", {}, `${id}: ${words}`)))])},
    ], fleet.jobs));
  }

  draw();
  return {change: (told) => { if (told.jobs) draw(); }};
}
