// Plays what ?manifest= names with the player that ?player= names, and keeps what a test asks for (tests/doubles/viewer.py).
'use strict';

const asked = new URLSearchParams(location.search);
const video = document.getElementById('video');
const viewing = (window.viewing = { trouble: null, segments: [], questions: [], answers: [] });
// On this network a player would fetch the whole film at once; it shall have some of it left to fetch elsewhere.
const AHEAD = Number(asked.get('ahead'));

const sinceEpoch = (at) => (performance.timeOrigin + at) / 1000;

/**
 * Segments that came whole: by which host, and which, and when they were asked for. The same for all players, whatever
 * they tell. And when steering was asked.
 */
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const url = new URL(entry.name);
    const number = /\/([^/]+)\/seg-(\d+)\.m4s$/.exec(url.pathname);
    if (number && entry.responseStatus === 200) {
      const at = sinceEpoch(entry.startTime);
      viewing.segments.push({ host: url.hostname, rendition: number[1], number: Number(number[2]), at });
    }
    if (url.pathname === '/v1/content-steering') viewing.questions.push(sinceEpoch(entry.startTime));
  }
}).observe({ type: 'resource', buffered: true });

const fail = (what) => { viewing.trouble ??= what; };

/** Steering's answer as the player reads it, and when. */
const told = (priority) => viewing.answers.push({ first: priority[0], at: sinceEpoch(performance.now()) });

const PLAYERS = {
  hls(manifest) {
    const hls = new Hls({ maxBufferLength: AHEAD, maxMaxBufferLength: AHEAD, backBufferLength: AHEAD });
    hls.on(Hls.Events.ERROR, (_event, problem) => {
      if (problem.fatal) fail(`${problem.details}: ${problem.error?.message}`);
    });
    hls.on(Hls.Events.STEERING_MANIFEST_LOADED, (_event, { steeringManifest }) => {
      told(steeringManifest['PATHWAY-PRIORITY']);
    });
    hls.loadSource(manifest);
    hls.attachMedia(video);
  },

  dash(manifest) {
    const player = dashjs.MediaPlayer().create();
    const buffer = { bufferTimeDefault: AHEAD, bufferTimeAtTopQuality: AHEAD, bufferTimeAtTopQualityLongForm: AHEAD };
    player.updateSettings({ streaming: { buffer } });
    // It tells of each segment that it could not have from one place, and then asks the next.
    const { DOWNLOAD_ERROR_ID_CONTENT_CODE, DOWNLOAD_ERROR_ID_INITIALIZATION_CODE } = dashjs.MediaPlayer.errors;
    const passing = [DOWNLOAD_ERROR_ID_CONTENT_CODE, DOWNLOAD_ERROR_ID_INITIALIZATION_CODE];
    player.on(dashjs.MediaPlayer.events.ERROR, ({ error }) => {
      if (!passing.includes(error.code)) fail(`${error.code}: ${error.message}`);
    });
    player.on(dashjs.MediaPlayer.events.CONTENT_STEERING_REQUEST_COMPLETED, ({ currentSteeringResponseData }) => {
      told(currentSteeringResponseData.pathwayPriority);
    });
    player.initialize(video, manifest, false);
  },

  shaka(manifest) {
    const player = new shaka.Player();
    player.configure({ streaming: { bufferingGoal: AHEAD } });
    player.addEventListener('error', ({ detail }) => {
      if (detail.severity === shaka.util.Error.Severity.CRITICAL) fail(`${detail.code}: ${detail.message}`);
    });
    player.getNetworkingEngine().registerResponseFilter((type, { data }) => {
      if (type !== shaka.net.NetworkingEngine.RequestType.CONTENT_STEERING) return;
      told(JSON.parse(new TextDecoder().decode(data))['PATHWAY-PRIORITY']);
    });
    player.attach(video).then(() => player.load(manifest)).catch((error) => fail(`${error.code}: ${error.message}`));
  },
};

video.addEventListener('error', () => fail(video.error.message));
video.addEventListener('ended', () => fail('the film is over'));
video.addEventListener('canplay', () => video.play().catch((error) => fail(String(error))), { once: true });
PLAYERS[asked.get('player')](asked.get('manifest'));
