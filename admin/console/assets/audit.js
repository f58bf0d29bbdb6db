// Who did what, here and at steering; and, for admins, who is logged in.
import {ask, h, moment, redraw, say, table} from "/assets/parts.js";
import {may} from "/assets/store.js";

export function audit(place) {
  const here = h("div", {}, h("p", {class: "waiting"}, "Reading…"));
  const there = h("div");
  const inside = h("div");
  place.append(h("h1", {}, "Audit log"), h("h2", {}, "In this console"), here, h("h2", {}, "Changes at steering, whoever made them"), there);
  if (may("admin")) place.append(h("h2", {}, "Who is logged in"), inside);

  async function draw() {
    try {
      const told = await ask("/api/audit");
      redraw(here, told.entries.length === 0 ? h("p", {class: "empty"}, "Nothing yet.") : table("The latest first", [
        {title: "At", cell: (one) => moment(one.at)}, {title: "Who", cell: (one) => one.who || "–"},
        {title: "From", cell: (one) => one.address, optional: true}, {title: "What", cell: (one) => one.what},
        {title: "Of", words: true, cell: (one) => one.about}, {title: "Why", words: true, cell: (one) => one.why, optional: true}, {title: "Outcome", words: true, cell: (one) => one.outcome},
      ], told.entries));
      redraw(there, told.error ? h("p", {class: "failure"}, told.error) : told.changes.length === 0 ? h("p", {class: "empty"}, "Nothing yet.") : table("Changes, the latest first", [
        {title: "At", cell: (one) => moment(one.at)}, {title: "Who", cell: (one) => one.who},
        {title: "Of", cell: (one) => `${one.kind} ${one.id}`}, {title: "Change", cell: (one) => `${one.change.type}${one.change.wish ? ` ${one.change.wish}` : ""}`}, {title: "Why", words: true, cell: (one) => one.why},
      ], told.changes));
    } catch (error) {
      redraw(here, h("p", {class: "failure"}, error.message));
    }
    if (may("admin")) sessions();
  }

  async function sessions() {
    try {
      const told = await ask("/api/sessions");
      redraw(inside, table("Sessions", [
        {title: "Who", cell: (one) => one.name}, {title: "Role", cell: (one) => one.role}, {title: "From", cell: (one) => one.address},
        {title: "Since", cell: (one) => moment(one.begun_at)}, {title: "Seen", cell: (one) => moment(one.seen_at)},
        {title: "", cell: (one) => (one.is_own ? "this one" : h("button", {type: "button", class: "danger", "aria-label": `End the session of ${one.name}`, onclick: () => end(one)}, "End"))},
      ], told));
    } catch (error) {
      redraw(inside, h("p", {class: "failure"}, error.message));
    }
  }

  async function end(session) {
    try {
      await ask("/api/sessions/end", {session: session.session});
      say(`Ended: the session of ${session.name}`);
    } catch (error) {
      say(error.message);
    }
    draw();
  }

  draw();
  return {};
}
