// The page: presses play, and shows where each file came from and why. Nothing here is assumed: what is not said by a
// header, a timing or steering is shown as such.
'use strict';

const $ = (id) => document.getElementById(id);
const video = $('video');
const asked = new URLSearchParams(location.search);
// Read by `oca-admin demo --smoke` too.
const demo = (window.demo = {
  deliveries: [], switches: [], isBuffered: false, trouble: null, felt: null, bps: 0,
});
// The browser keeps the timings of 250 files unless told otherwise; a long film has more.
performance.setResourceTimingBufferSize(20000);

/** The verdict of the cache nearest to us: Cache-Status (RFC 9211) lists caches from the origin's side to ours. */
function verdict(cacheStatus) {
  if (!cacheStatus) return 'unknown';
  const nearest = cacheStatus.split(',').pop().split(';').map((part) => part.trim().toLowerCase());
  if (nearest.includes('hit')) return 'hit';
  const forward = nearest.find((part) => part.startsWith('fwd='));
  if (!forward) return 'unknown';
  return forward === 'fwd=stale' ? 'stale' : 'miss';
}

/** Whether the browser answered from its own cache: then the headers tell of an earlier time. */
function isFromBrowser(timing) {
  return timing !== undefined && timing.transferSize === 0 && timing.decodedBodySize > 0;
}

// --- What came ---

function came(file) {
  const path = new URL(file.url).pathname;
  const inTitle = path.slice(path.indexOf('/titles/'));
  const rendition = demo.film.renditions.find((each) => inTitle.startsWith(`${each.folder}/`));
  const timing = performance.getEntriesByName(file.url, 'resource').pop();
  // The browser's own measure (appliances allow it by Timing-Allow-Origin) leaves out how long this page was busy.
  const firstByte = timing && timing.requestStart ? timing.responseStart - timing.requestStart : file.firstByte;
  const place = demo.places.of(file.url);
  const delivery = {
    ...file,
    path: inTitle,
    from: place ? place.id : '?',
    rendition: rendition ? rendition.name : null,
    media: rendition ? rendition.kind : null,
    firstByte,
    verdict: isFromBrowser(timing) ? 'browser' : verdict(file.cacheStatus),
  };
  demo.deliveries.push(delivery);
  showDelivery(delivery);
  showOnTimeline(delivery);
  showFigures();
}

function cell(row, text, className) {
  const made = row.insertCell();
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

const kilobytes = (bytes) => `${(bytes / 1000).toLocaleString('en', { maximumFractionDigits: 1 })} kB`;
const milliseconds = (value) => `${value.toFixed(1)} ms`;

function showDelivery(delivery) {
  const row = $('deliveries').insertRow(0);
  cell(row, demo.deliveries.length, 'number');
  cell(row, delivery.from);
  const file = cell(row, delivery.path.split('/').slice(-2).join('/'), 'file');
  file.title = delivery.path;
  cell(row, delivery.rendition ?? 'all');
  cell(row, kilobytes(delivery.bytes), 'number');
  cell(row, milliseconds(delivery.firstByte), 'number');
  cell(row, milliseconds(delivery.whole), 'number');
  const said = delivery.verdict === 'browser' ? "your browser's own cache" : delivery.cacheStatus ?? 'none sent';
  const status = cell(row, said);
  const mark = document.createElement('span');
  mark.className = `mark ${delivery.verdict}`;
  status.prepend(mark);
}

function onTimeline(className, at, title) {
  const made = document.createElement('div');
  made.className = className;
  made.style.left = `${(100 * at) / demo.film.duration}%`;
  if (title) made.title = title;
  $('timeline').append(made);
  return made;
}

function showOnTimeline(delivery) {
  if (delivery.kind !== 'segment' || delivery.start === null) return;
  const block = onTimeline(`segment ${delivery.verdict}`, delivery.start, `${delivery.path} from ${delivery.from}`);
  block.style.width = `${(100 * delivery.duration) / demo.film.duration}%`;
  if (delivery.media === 'video') {
    const videos = demo.film.renditions.filter((each) => each.kind === 'video');
    const place = videos.findIndex((each) => each.name === delivery.rendition);
    const height = (38 * (place + 1)) / videos.length;
    block.style.height = `${height}px`;
    block.style.top = `${42 - height}px`;
  } else {
    block.style.height = '20px';
    block.style.top = '48px';
  }
  block.textContent = delivery.from;
}

function showFigures() {
  const counted = demo.deliveries.filter((each) => each.verdict !== 'browser');
  const hits = counted.filter((each) => each.verdict === 'hit');
  $('hits').textContent = counted.length ? `${hits.length} of ${counted.length}` : '–';
  const times = counted.map((each) => each.firstByte).sort((a, b) => a - b);
  $('first-byte').textContent = times.length ? milliseconds(times[Math.floor(times.length / 2)]) : '–';
  $('stalls').textContent = demo.felt.stalls;
}

// --- Where from ---

function switched(event) {
  demo.switches.push({ ...event, position: video.currentTime });
  const line = document.createElement('li');
  const why = event.why === 'steering' ? 'steering says so' : event.why;
  line.textContent = `at ${video.currentTime.toFixed(1)} s from ${event.from} to ${event.to}: ${why}`;
  $('switches').append(line);
  onTimeline('switch', video.currentTime, line.textContent);
  showCurrent();
}

function showCurrent() {
  $('current').textContent = demo.places.current.id;
  $('fail').textContent = `Fail ${demo.places.current.id}`;
}

/** The fleet as it is, and how steering ranks it for this viewer. Asked once a second. */
async function look() {
  const path = `/titles/${demo.film.title}/master.m3u8`;
  const current = encodeURIComponent(demo.places.current.id);
  const [fleet, why] = await Promise.all([
    (await fetch('api/fleet')).json(),
    fetch(`api/explain?path=${path}&current=${current}`).then((answer) => (answer.ok ? answer.json() : null)),
  ]);
  const rows = [...Object.keys(demo.film.cities), demo.film.parent, 'steering'];
  const body = $('fleet');
  body.replaceChildren();
  for (const name of rows) {
    const row = body.insertRow();
    if (name === demo.places.current.id) row.className = 'current';
    const isAlive = fleet.alive[name];
    cell(row, name);
    cell(row, demo.film.cities[name] ?? (name === demo.film.parent ? 'the exchange' : '–'));
    cell(row, isAlive ? fleet.standing[name] ?? 'up' : 'killed');
    const terms = why?.ranked.find((each) => each.appliance === name);
    const barred = why?.rejected.find((each) => each.appliance === name);
    cell(row, terms ? milliseconds(terms.cost) : '–', 'number');
    if (terms) cell(row, `${terms.proximity}: rtt ${terms.rtt} + fetch ${terms.fetch} + load ${terms.load}`);
    else cell(row, barred ? barred.why : '–');
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = isAlive ? 'fail' : 'revive';
    button.addEventListener('click', () => act(isAlive ? 'fail' : 'revive', name));
    row.insertCell().append(button);
  }
  $('reason').textContent = why ? `plays from; steering: ${why.reason}` : 'plays from; steering is away';
}

// --- A night ---

const NIGHT = {
  counting: 'Appliances say what was watched; some hours of viewers are made up.',
  planning: 'The planner forecasts tomorrow, and places.',
  filling: 'Agents bring what their orders name.',
  done: 'It is morning: go where nobody has watched yet, and the film is there.',
};

const percent = (share) => `${Math.round(100 * share)} %`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** What the night is at; asked again while it lasts. */
async function showNight(night) {
  demo.night = night;
  if (night.phase === 'never') return;
  const isOver = night.phase === 'done' || night.phase === 'failed';
  $('begin-night').disabled = !isOver;
  const away = night.away.length ? ` Left out, for they are away: ${night.away.join(', ')}.` : '';
  $('night-said').textContent = (night.phase === 'failed' ? `It failed: ${night.trouble}` : NIGHT[night.phase]) + away;
  $('night-plan').hidden = !night.plan;
  const rows = $('night-rows');
  rows.replaceChildren();
  for (const { id, bring_bytes: bytes, bring_renditions: count } of night.plan?.appliances ?? []) {
    const site = night.plan.sites.find((each) => id.startsWith(`${each.id}-`));
    const agent = night.agents[id];
    const row = rows.insertRow();
    cell(row, id);
    cell(row, site ? percent(site.pledged_before) : '–', 'number');
    cell(row, site ? percent(site.pledged_after) : '–', 'number');
    cell(row, `${count} renditions, ${megabytes(bytes)}`, 'number');
    cell(row, agent ? `${agent.done_renditions} of ${agent.order_renditions}, ${megabytes(agent.done_bytes)}` : '–', 'number');
    const sources = Object.entries(agent?.source_bytes ?? {}).filter(([, came]) => came > 0);
    cell(row, sources.map(([kind, came]) => `${kind} ${megabytes(came)}`).join(', ') || '–');
  }
  if (!isOver) setTimeout(() => lookAtNight().catch(() => {}), 500);
}

async function lookAtNight() {
  await showNight(await (await fetch('api/night')).json());
}

async function beginNight() {
  const answer = await fetch('api/night', { method: 'POST', headers: { 'X-Demo': '1' } });
  const told = await answer.json();
  if (answer.ok) await showNight(told);
  else $('night-said').textContent = told.error;
}

async function act(what, name) {
  const answer = await fetch(`api/${what}?name=${encodeURIComponent(name)}`, { method: 'POST', headers: { 'X-Demo': '1' } });
  if (!answer.ok) fail((await answer.json()).error);
}

// --- Playing ---

function fail(text) {
  demo.trouble = text;
  $('trouble').textContent = text;
  $('trouble').hidden = false;
}

function offerRenditions(player) {
  const choice = $('rendition');
  choice.replaceChildren(new Option('by itself', ''));
  const wanted = demo.film.renditions.find((each) => each.name === asked.get('rendition'));
  for (const { height, bps } of player.renditions()) {
    choice.add(new Option(`${height}p, ${(bps / 1e6).toFixed(1)} Mb/s`, String(height)));
    if (wanted && wanted.height === height) choice.value = String(height);
  }
  const choose = () => player.choose(choice.value ? Number(choice.value) : null);
  choice.addEventListener('change', choose);
  choose();
}

/** What this browser can play, as steering wants to hear it. */
function codecs() {
  const known = { avc1: 'avc1.640028', hvc1: 'hvc1.1.6.L120.90', vp09: 'vp09.00.40.08', av01: 'av01.0.08M.08', mp4a: 'mp4a.40.2' };
  const can = (codec) => MediaSource.isTypeSupported(`${codec.startsWith('mp4a') ? 'audio' : 'video'}/mp4; codecs="${codec}"`);
  return Object.entries(known).filter(([, full]) => can(full)).map(([family]) => family).join(',');
}

async function pressPlay() {
  const { token } = await (await fetch('token')).json();
  const answer = await fetch(`v1/playback?title=${demo.film.title}&codecs=${codecs()}`, {
    headers: { Authorization: `Bearer ${token}` },
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

async function play() {
  const playback = (demo.playback = await pressPlay());
  demo.places = new Places(playback, switched, pressPlay);
  demo.felt = new Felt(video, demo.film.duration);
  showCurrent();
  const Player = PLAYERS[$('player').value];
  const player = new Player(video, demo.places, playback.session, {
    came,
    ready() {
      offerRenditions(player);
      // A browser may refuse to start by itself; then the viewer presses play.
      video.play().catch(() => {});
    },
    playing(height, bps) { $('playing').textContent = `${height}p, ${(bps / 1e6).toFixed(1)} Mb/s`; },
    bandwidth(bps) { demo.places.bps = bps; },
    buffered() { demo.isBuffered = true; },
    fail(text) { fail(`Playing stopped: ${text}`); },
  }, 'licence');
  video.addEventListener('waiting', showFigures);
  setInterval(() => { $('buffer').textContent = `${demo.felt.ahead().toFixed(1)} s`; }, 100);
  setInterval(() => look().catch(() => {}), 1000);
  player.start(demo.places.current);
}

function offerPlaces() {
  const cookie = /(?:^|; )place=([a-z]+)/.exec(document.cookie);
  const chosen = asked.get('place') ?? (cookie ? cookie[1] : 'lisbon');
  for (const [id, name] of Object.entries(demo.film.places)) $('place').add(new Option(name, id));
  $('place').value = chosen;
  $('player').value = asked.get('player') === 'dash' ? 'dash' : 'hls';
  document.cookie = `place=${chosen}; path=/; SameSite=Strict`;
  // Whoever goes elsewhere, or takes another player, begins anew.
  const again = () => {
    asked.set('place', $('place').value);
    asked.set('player', $('player').value);
    location.search = asked.toString();
  };
  $('place').addEventListener('change', again);
  $('player').addEventListener('change', again);
  $('fail').addEventListener('click', () => act('fail', demo.places.current.id));
  $('begin-night').addEventListener('click', () => beginNight().catch(() => {}));
}

async function start() {
  demo.film = await (await fetch('film.json')).json();
  offerPlaces();
  lookAtNight().catch(() => {});
  const head = document.createElement('div');
  head.className = 'head';
  $('timeline').append(head);
  video.addEventListener('timeupdate', () => {
    head.style.left = `${(100 * video.currentTime) / demo.film.duration}%`;
  });
  if (!window.Hls || !Hls.isSupported()) {
    fail('This browser has no Media Source Extensions, which the players need.');
    return;
  }
  await play();
}

start().catch((error) => fail(`The page could not start: ${error.message}`));
