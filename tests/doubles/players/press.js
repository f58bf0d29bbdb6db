// Presses play at ?steering= for ?title= as an operator's page would, with the demo's places.js and players.js, and keeps
// what a test asks for (tests/doubles/viewer.py). ?playback= is steering's answer if play was pressed before.
'use strict';

const asked = new URLSearchParams(location.search);
const video = document.getElementById('video');
const viewing = (window.viewing = {
  trouble: null, isOver: false, presses: 0, moves: [], requests: [], places: null, player: null, felt: null,
});
const fail = (what) => { viewing.trouble ??= what; };

/** Whatever was asked of anybody: when (seconds since 1970), and the status; 0 if no answer came. */
const observer = new PerformanceObserver((list) => keep(list.getEntries()));
observer.observe({ type: 'resource', buffered: true });
const keep = (entries) => {
  for (const { name, startTime, responseStatus } of entries) {
    viewing.requests.push({ url: name, at: (performance.timeOrigin + startTime) / 1000, status: responseStatus });
  }
};
viewing.allRequests = () => {
  keep(observer.takeRecords());
  return viewing.requests;
};
Object.defineProperty(viewing, 'segments', {
  get: () => viewing.allRequests().flatMap(({ url, at, status }) => {
    const [, rendition, number] = /\/([^/]+)\/seg-(\d+)\.m4s/.exec(url) ?? [];
    const came = number && (status === 200 || status === 206);
    return came ? [{ host: new URL(url).hostname, rendition, number: Number(number), at }] : [];
  }),
});

const TUNED = {
  hls: {
    ahead: ({ hls }, seconds) => Object.assign(hls.config, { maxBufferLength: seconds, maxMaxBufferLength: seconds }),
    sendCookies: ({ hls }) => { hls.config.xhrSetup = (request) => { request.withCredentials = true; }; },
  },
  dash: {
    ahead: ({ player }, seconds) => player.updateSettings({
      streaming: {
        buffer: { bufferTimeDefault: seconds, bufferTimeAtTopQuality: seconds, bufferTimeAtTopQualityLongForm: seconds },
      },
    }),
    sendCookies: ({ player }) => player.setXHRWithCredentialsForType(null, true),
  },
}[asked.get('player')];

/** Seconds that are fetched before they are seen. */
viewing.ahead = (seconds) => TUNED.ahead(viewing.player, seconds);

async function pressPlay() {
  viewing.presses += 1;
  const answer = await fetch(`${asked.get('steering')}/v1/playback?title=${asked.get('title')}&codecs=avc1,mp4a`, {
    headers: { Authorization: `Bearer ${asked.get('token')}` },
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

async function play() {
  const playback = asked.has('playback') ? JSON.parse(asked.get('playback')) : await pressPlay();
  viewing.places = new Places(playback, (move) => viewing.moves.push(move), pressPlay);
  viewing.felt = new Felt(video, playback.duration);
  const player = new PLAYERS[asked.get('player')](video, viewing.places, playback.session, {
    came() {},
    playing() {},
    bandwidth() {},
    buffered() {},
    ready() {
      player.choose(null);
      video.play().catch((error) => fail(String(error)));
    },
    fail,
  }, 'licence');
  viewing.player = player;
  viewing.ahead(Number(asked.get('ahead')));
  if (asked.has('cookies')) TUNED.sendCookies(player);
  player.start(viewing.places.current);
}

video.addEventListener('error', () => fail(video.error.message));
video.addEventListener('ended', () => { viewing.isOver = true; });
play().catch((error) => fail(error.message));
