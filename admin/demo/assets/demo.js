// Plays the film from the appliance and shows how each file came: size, time to first byte, and what the appliance says
// of it in Cache-Status (RFC 9211). Nothing here is assumed: what is not said by a header or a timing is shown as such.
'use strict';

const $ = (id) => document.getElementById(id);
const video = $('video');
// Read by `oca-admin demo --smoke` too.
const demo = (window.demo = { deliveries: [], isBuffered: false, trouble: null });
// The browser keeps the timings of 250 files unless told otherwise; a long film has more.
performance.setResourceTimingBufferSize(20000);

/** The verdict of the cache nearest to us: Cache-Status lists caches from the origin's side to ours. */
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

/**
 * Milliseconds from asking to the first byte of the answer. The browser's own measure (the appliance allows it by
 * Timing-Allow-Origin) leaves out how long this page was busy; without it, hls.js's is what there is.
 */
function firstByte(timing, stats) {
  if (timing === undefined || timing.requestStart === 0) return stats.loading.first - stats.loading.start;
  return timing.responseStart - timing.requestStart;
}

function kindOf(context) {
  if (!context.frag) return 'playlist';
  return context.frag.sn === 'initSegment' ? 'init' : 'segment';
}

/** hls.js's own loader, with a note taken of every file. */
class WatchedLoader extends Hls.DefaultConfig.loader {
  load(context, config, callbacks) {
    super.load(context, config, {
      ...callbacks,
      onSuccess: (response, stats, loaded, network) => {
        note(response, stats, loaded, network);
        callbacks.onSuccess(response, stats, loaded, network);
      },
    });
  }
}

function note(response, stats, context, network) {
  const url = response.url;
  const path = new URL(url).pathname;
  const rendition = demo.film.renditions.find((each) => path.startsWith(`${each.folder}/`));
  const timing = performance.getEntriesByName(url, 'resource').pop();
  const cacheStatus = network.getResponseHeader('Cache-Status');
  const delivery = {
    url,
    path,
    kind: kindOf(context),
    rendition: rendition ? rendition.name : null,
    media: rendition ? rendition.kind : null,
    bytes: stats.total || stats.loaded,
    firstByte: firstByte(timing, stats),
    whole: stats.loading.end - stats.loading.start,
    cacheStatus,
    verdict: isFromBrowser(timing) ? 'browser' : verdict(cacheStatus),
    start: context.frag ? context.frag.start : null,
    duration: context.frag ? context.frag.duration : null,
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
  const file = cell(row, delivery.path.split('/').slice(-2).join('/'), 'file');
  file.title = delivery.url;
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

function showOnTimeline(delivery) {
  if (delivery.kind !== 'segment') return;
  const block = document.createElement('div');
  block.className = `segment ${delivery.verdict}`;
  block.style.left = `${(100 * delivery.start) / demo.film.duration}%`;
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
  block.textContent = delivery.rendition;
  block.title = delivery.path;
  $('timeline').append(block);
}

function showFigures() {
  const asked = demo.deliveries.filter((each) => each.verdict !== 'browser');
  const hits = asked.filter((each) => each.verdict === 'hit');
  const sum = (list) => list.reduce((total, each) => total + each.bytes, 0);
  const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(0)} %` : '–');
  $('hits').textContent = asked.length ? `${hits.length} of ${asked.length}` : '–';
  $('bytes').textContent = share(sum(hits), sum(asked));
  const times = asked.map((each) => each.firstByte).sort((a, b) => a - b);
  $('first-byte').textContent = times.length ? milliseconds(times[Math.floor(times.length / 2)]) : '–';
}

function fail(text) {
  demo.trouble = text;
  $('trouble').textContent = text;
  $('trouble').hidden = false;
}

/** The rendition of the film that a level of hls.js plays. */
const renditionOf = (level) =>
  demo.film.renditions.find((each) => new URL(level.uri).pathname.startsWith(`${each.folder}/`));

function offerRenditions(hls) {
  const wanted = new URLSearchParams(location.search).get('rendition');
  const choice = $('rendition');
  choice.add(new Option('by itself', '-1'));
  hls.levels.forEach((level, place) => {
    const rendition = renditionOf(level);
    const name = rendition ? rendition.name : `${level.height}p`;
    choice.add(new Option(`${name}, ${(level.bitrate / 1e6).toFixed(1)} Mb/s`, String(place)));
    if (name === wanted) choice.value = String(place);
  });
  const choose = () => { hls.nextLevel = Number(choice.value); };
  choice.addEventListener('change', choose);
  hls.startLevel = Number(choice.value);
  hls.loadLevel = Number(choice.value);
}

function play() {
  // Always hls.js, also where the browser could play HLS by itself: it alone shows us every request.
  const hls = new Hls({ loader: WatchedLoader, autoStartLoad: false });
  hls.on(Hls.Events.MANIFEST_PARSED, () => {
    offerRenditions(hls);
    hls.startLoad();
    // A browser may refuse to start by itself; then the viewer presses play.
    video.play().catch(() => {});
  });
  hls.on(Hls.Events.LEVEL_SWITCHED, (_event, { level }) => {
    const rendition = renditionOf(hls.levels[level]);
    $('playing').textContent = rendition ? rendition.name : `${hls.levels[level].height}p`;
  });
  hls.on(Hls.Events.BUFFERED_TO_END, () => { demo.isBuffered = true; });
  hls.on(Hls.Events.ERROR, (_event, problem) => {
    if (problem.fatal) fail(`Playing stopped: ${problem.details} (${problem.error ? problem.error.message : problem.type})`);
  });
  hls.attachMedia(video);
  hls.loadSource(demo.film.playlist_url);
}

async function start() {
  const film = await (await fetch('film.json')).json();
  demo.film = film;
  $('route').textContent =
    `“${film.title}”, played from ${film.appliance_id} (${film.appliance_url}), which fetches from ${film.origin_url}`;
  const head = document.createElement('div');
  head.className = 'head';
  $('timeline').append(head);
  video.addEventListener('timeupdate', () => {
    head.style.left = `${(100 * video.currentTime) / film.duration}%`;
  });
  if (!window.Hls || !Hls.isSupported()) {
    fail('This browser has no Media Source Extensions, which the player needs.');
    return;
  }
  play();
}

start().catch((error) => fail(`The page could not start: ${error.message}`));
