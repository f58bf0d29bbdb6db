// What fires, of Alertmanager: acknowledged here, snoozed there.
import {ago, ask, confirm, h, moment, redraw, say, state} from "/assets/parts.js";
import {fleet, may, now} from "/assets/store.js";

export function issues(place) {
  const all = h("div");
  const hidden = h("input", {type: "checkbox", name: "all", onchange: () => draw()});
  place.append(h("h1", {}, "Issues"), h("p", {}, h("label", {}, hidden, " Also what is snoozed, or follows from another")), all);

  function draw() {
    if (!fleet.me.alertmanager) { redraw(all, h("p", {class: "empty"}, "There is no [alertmanager] in the console's settings.")); return; }
    const seen = fleet.alerts.filter((alert) => hidden.checked || (!alert.snoozed && !alert.inhibited));
    if (seen.length === 0) {
      const out = fleet.alerts.length;
      redraw(all, h("p", {class: "empty"}, out ? `Nothing that is not snoozed or follows from another (${out} of these).` : "Nothing fires."));
      return;
    }
    redraw(all, h("ul", {class: "list"}, seen.map(issue)));
  }

  draw();
  return {change: (told) => { if (told.alerts) draw(); }};
}

function issue(alert) {
  const about = alert.labels.appliance;
  return h("li", {},
    h("p", {class: "actions"},
      state(alert.severity === "page" ? "bad" : "warning", ""), h("strong", {}, alert.name),
      about && h("a", {href: `#/appliance/${encodeURIComponent(about)}`}, about),
      alert.labels.site && h("a", {href: `#/site/${encodeURIComponent(alert.labels.site)}`}, `site ${alert.labels.site}`),
      h("span", {class: "quiet"}, `${alert.severity || "no severity"}, for ${ago(now() - Date.parse(alert.starts_at) / 1000)}`)),
    h("p", {}, alert.summary),
    alert.acknowledged && h("p", {class: "quiet"}, `Acknowledged by ${alert.acknowledged.who} at ${moment(alert.acknowledged.at)}: ${alert.acknowledged.note}`),
    alert.snoozed && h("p", {class: "quiet"}, `Snoozed by ${alert.snoozed.who} until ${moment(Date.parse(alert.snoozed.until) / 1000)}: ${alert.snoozed.note}`),
    h("p", {class: "actions"},
      h("a", {href: `/runbooks/${encodeURIComponent(alert.name)}`, target: "_blank", rel: "noopener"}, "Runbook"),
      /^https?:/.test(alert.dashboard) && h("a", {href: alert.dashboard, target: "_blank", rel: "noopener"}, "Dashboard"),
      may("operator") && !alert.acknowledged && h("button", {type: "button", onclick: () => acknowledge(alert)}, "Acknowledge"),
      may("operator") && !alert.snoozed && h("button", {type: "button", onclick: () => snooze(alert)}, "Snooze"),
      may("operator") && alert.snoozed && h("button", {type: "button", onclick: () => wake(alert)}, "Wake")));
}

function acknowledge(alert) {
  confirm(`Acknowledge ${alert.name}`, "Others see that somebody works on it. It goes on firing.", null, "Acknowledge", async ({why}) => {
    await ask("/api/alerts/acknowledge", {fingerprint: alert.fingerprint, note: why});
    return `Acknowledged: ${alert.name}`;
  });
}

function snooze(alert) {
  const span = h("label", {}, "For", h("select", {name: "seconds"}, [[3600, "an hour"], [4 * 3600, "4 hours"], [12 * 3600, "12 hours"], [86400, "a day"], [7 * 86400, "a week"]].map(([value, words]) => h("option", {value}, words))));
  confirm(`Snooze ${alert.name}`, "Alertmanager tells nobody of this one until then.", span, "Snooze", async ({why, seconds}) => {
    await ask("/api/alerts/snooze", {fingerprint: alert.fingerprint, note: why, seconds: Number(seconds)});
    return `Snoozed: ${alert.name}`;
  });
}

async function wake(alert) {
  try {
    await ask("/api/alerts/wake", {fingerprint: alert.fingerprint});
    say(`Awake again: ${alert.name}`);
  } catch (error) {
    say(error.message);
  }
}
