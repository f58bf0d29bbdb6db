// What all pages are made of: elements without markup in strings, words for numbers, and asking the console.

/** An element: `h("td", {class: "number"}, "12 %")`. Properties that begin with "on" listen; null and false are left out. */
export function h(tag, properties = {}, ...children) {
  const made = tag === "svg" || h.svg.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
h.svg = new Set(["path", "circle", "rect", "line", "g", "polygon", "text", "title"]);

export const bits = (bps) => unit(bps, 1000, ["b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s", "Pb/s"]);
export const bytes = (size) => unit(size, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]);
export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);
export const seconds = (span) => (span >= 1 ? `${span.toFixed(1)} s` : `${span >= 0.01 || span === 0 ? Math.round(span * 1000) : (span * 1000).toFixed(1)} ms`);

function unit(value, step, names) {
  if (value === null || value === undefined) return "–";
  let place = 0;
  while (value >= step && place < names.length - 1) { value /= step; place += 1; }
  return `${value >= 100 || place === 0 ? Math.round(value) : value.toFixed(1)} ${names[place]}`;
}

/** A moment in seconds since 1970, here. */
export function moment(at) {
  if (!at) return "never";
  const when = new Date(at * 1000);
  const day = when.toDateString() === new Date().toDateString() ? "" : `${iso(when).slice(0, 10)} `;
  return day + when.toTimeString().slice(0, 8);
}

export function ago(span) {
  if (span < 90) return `${Math.max(0, Math.round(span))} s`;
  if (span < 5400) return `${Math.round(span / 60)} min`;
  return span < 129600 ? `${Math.round(span / 3600)} h` : `${Math.round(span / 86400)} d`;
}

/** As an input of the kind datetime-local has it. */
export const iso = (when) => new Date(when - when.getTimezoneOffset() * 60000).toISOString().slice(0, 16);

export const state = (name, words) => h("span", {class: `state ${name}`}, words);

/** Put these in a place instead of what is there. Whoever has the focus in it by keyboard keeps it, on what is the same. */
export function redraw(place, ...children) {
  const at = document.activeElement;
  const same = place.contains(at) ? all(place, at.tagName).filter((one) => called(one) === called(at)).indexOf(at) : -1;
  place.replaceChildren(...children);
  if (same >= 0) all(place, at.tagName).filter((one) => called(one) === called(at)).at(same)?.focus({preventScroll: true});
}
const all = (place, tag) => [...place.querySelectorAll(tag)];
const called = (one) => one.getAttribute("href") ?? one.getAttribute("aria-label") ?? one.name ?? one.textContent;

export class Failed extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

let csrf = "";
export const trust = (token) => { csrf = token; };

/** What the console answers. Throws Failed, with words. A session that is over leads to the log-in. */
export async function ask(path, order = null, patience = 35000) {
  let answer;
  try {
    answer = await fetch(path, {
      method: order === null ? "GET" : "POST",
      headers: order === null ? {} : {"Content-Type": "application/json", "X-CSRF-Token": csrf},
      body: order === null ? null : JSON.stringify(order),
      signal: AbortSignal.timeout(patience),
    });
  } catch (error) {
    throw new Failed(0, "The console did not answer.");
  }
  if (answer.status === 401) { location.assign("/login"); throw new Failed(401, "Log in first."); }
  const said = await answer.json().catch(() => ({error: `The console answered ${answer.status}.`}));
  if (!answer.ok) throw new Failed(answer.status, said.error);
  return said;
}

let quiet = 0;
/** For eyes and for screen readers; gone after a while. */
export function say(words) {
  const place = document.getElementById("said");
  place.textContent = words;
  clearTimeout(quiet);
  quiet = setTimeout(() => { place.textContent = ""; }, 8000);
}

/** A table from columns [{title, cell, number, optional}] and rows. */
export function table(caption, columns, rows) {
  const kind = (column) => [column.number && "number", column.optional && "optional", column.words && "words"].filter(Boolean).join(" ") || null;
  return h("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption}, h("table", {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", {scope: "col", class: kind(column)}, column.title)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) => h("td", {class: kind(column)}, column.cell(row))))))));
}

/** Ask before something is done: fields are labels of inputs in `body`; `act` gets the form's values, and may throw. */
export function confirm(title, words, body, verb, act) {
  const dialog = document.getElementById("ask");
  const wrong = h("p", {class: "failure", role: "alert", hidden: true});
  const force = h("label", {class: "check", hidden: true}, h("input", {type: "checkbox", name: "force"}), " Do it all the same: viewers may be left without an appliance");
  const go = h("button", {class: "main"}, verb);
  const form = h("form", {
    method: "dialog",
    onsubmit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      wrong.hidden = true;
      const values = Object.fromEntries(new FormData(form));
      try {
        const done = await act({...values, force: values.force === "on"});
        dialog.close();
        say(done);
      } catch (error) {
        wrong.textContent = error.message;
        wrong.hidden = false;
        force.hidden = !(error.status === 409 && error.message.includes("with force"));
      } finally {
        go.disabled = false;
      }
    },
  },
  h("h2", {id: "ask-title"}, title), words && h("p", {}, words), body,
  h("label", {}, "Why (kept in the audit log)", h("textarea", {name: "why", required: true, maxlength: 500})),
  wrong, force,
  h("p", {class: "actions end"}, h("button", {type: "button", onclick: () => dialog.close()}, "Leave it"), go));
  dialog.replaceChildren(form);
  dialog.showModal();
  form.querySelector("input:not([type=checkbox]), textarea, select").focus();
}
