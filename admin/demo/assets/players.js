// hls.js and dash.js, made to fetch every file from where `Places` says, to send CMCD, and to tell of each file that came.
'use strict';

/**
 * Both players look the same from outside: start, stop, renditions(), choose(name or null), and what they tell:
 *   came({url, kind, bytes, firstByte, whole, cacheStatus, start, duration})   a file is there
 *   playing(height, bps)                                                       another rendition is shown
 *   bandwidth(bps)                                                             what the player thinks that the line carries
 *   fail(text)                                                                 playing has ended for good
 * `licence`, if given, is the URL of a licence server for encrypted films (ClearKey, Encrypted Media Extensions 9.1.3).
 */

/** Seconds that a player fetches before they are seen: little, so that there is something left to fetch elsewhere. */
const AHEAD = 12;

function kindOf(path) {
  if (/\.(m3u8|mpd)$/.test(path)) return 'playlist';
  return /\/init[^/]*$/.test(path) ? 'init' : 'segment';
}

class HlsPlayer {
  constructor(video, places, session, tell, licence = null) {
    this.video = video;
    this.tell = tell;
    const quick = { maxTimeToFirstByteMs: 4000, maxLoadTimeMs: 20000, timeoutRetry: null, errorRetry: null };
    // Tries again are ours: at the next place, at once.
    this.hls = new Hls({
      loader: routed(places, tell),
      autoStartLoad: false,
      maxBufferLength: AHEAD,
      maxMaxBufferLength: AHEAD,
      backBufferLength: AHEAD,
      cmcd: { sessionId: session, contentId: places.title, useHeaders: false },
      fragLoadPolicy: { default: quick },
      playlistLoadPolicy: { default: quick },
      manifestLoadPolicy: { default: quick },
      ...(licence && { emeEnabled: true, drmSystems: { 'org.w3.clearkey': { licenseUrl: licence, generateRequest: askById } } }),
    });
  }

  start(place) {
    const { hls } = this;
    hls.on(Hls.Events.MANIFEST_PARSED, () => this.tell.ready());
    hls.on(Hls.Events.LEVEL_SWITCHED, (_event, { level }) => {
      this.tell.playing(hls.levels[level].height, hls.levels[level].bitrate);
    });
    hls.on(Hls.Events.FRAG_LOADED, () => this.tell.bandwidth(hls.bandwidthEstimate));
    hls.on(Hls.Events.BUFFERED_TO_END, () => this.tell.buffered());
    hls.on(Hls.Events.ERROR, (_event, problem) => {
      if (problem.fatal) this.tell.fail(`${problem.details} (${problem.error ? problem.error.message : problem.type})`);
    });
    hls.attachMedia(this.video);
    hls.loadSource(place.hls);
  }

  renditions() {
    return this.hls.levels.map((level) => ({ height: level.height, bps: level.bitrate }));
  }

  /** Hold to the rendition of this height; null leaves it to the player. Loading begins with the first choice. */
  choose(height) {
    const { hls } = this;
    const level = height === null ? -1 : hls.levels.findIndex((each) => each.height === height);
    hls.startLevel = level;
    hls.loadLevel = level;
    if (!this.isLoading) hls.startLoad();
    this.isLoading = true;
  }

  stop() {
    this.hls.destroy();
  }
}

/** ClearKey's question, from the key's id that the playlist says: nothing has to be fetched before it. */
function askById(_type, _data, { decryptdata }) {
  const id = btoa(String.fromCharCode(...decryptdata.keyId)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  return { initDataType: 'keyids', initData: new TextEncoder().encode(JSON.stringify({ kids: [id] })).buffer };
}

/** hls.js's loader, going to where the film is played from; what fails there is tried at the next place. */
function routed(places, tell) {
  const Inner = Hls.DefaultConfig.loader;
  return class RoutedLoader {
    constructor(config) {
      this.config = config;
      this.inner = new Inner(config);
      this.stats = this.inner.stats;
      this.context = null;
      this.isOver = false;
    }

    load(context, config, callbacks) {
      this.context = context;
      this.attempt(context, config, callbacks, places.list.length);
    }

    attempt(context, config, callbacks, tries) {
      const url = places.url(context.url);
      const anew = () => {
        this.inner.destroy();
        this.inner = new Inner(this.config);
        this.attempt(context, config, callbacks, tries - 1);
      };
      const again = (why, otherwise) => {
        if (!places.failed(url, why) || tries <= 1) otherwise();
        else anew();
      };
      this.inner.load({ ...context, url }, config, {
        ...callbacks,
        onSuccess: (response, stats, loaded, network) => {
          // The player knows the numbers of its first loader only.
          if (stats !== this.stats) Object.assign(this.stats, stats);
          tell.came({
            url,
            kind: context.frag ? (context.frag.sn === 'initSegment' ? 'init' : 'segment') : 'playlist',
            bytes: stats.total || stats.loaded,
            firstByte: stats.loading.first - stats.loading.start,
            whole: stats.loading.end - stats.loading.start,
            cacheStatus: network.getResponseHeader('Cache-Status'),
            start: context.frag ? context.frag.start : null,
            duration: context.frag ? context.frag.duration : null,
          });
          callbacks.onSuccess(response, this.stats, context, network);
        },
        onError: async (error, _context, network) => {
          const otherwise = () => callbacks.onError(error, context, network, this.stats);
          if (error.code !== 401) again(`no answer (${error.code || 'cut'})`, otherwise);
          else if (tries <= 1 || !(await places.renewed(url))) otherwise();
          else if (!this.isOver) anew();
        },
        onTimeout: (_stats, _context, network) => {
          again('too slow', () => callbacks.onTimeout(this.stats, context, network));
        },
      });
    }

    abort() {
      this.isOver = true;
      this.inner.abort();
    }

    destroy() {
      this.isOver = true;
      this.inner.destroy();
    }

    getCacheAge() { return this.inner.getCacheAge ? this.inner.getCacheAge() : null; }
    getResponseHeader(name) { return this.inner.getResponseHeader ? this.inner.getResponseHeader(name) : null; }
  };
}

class DashPlayer {
  constructor(video, places, session, tell, licence = null) {
    this.video = video;
    this.tell = tell;
    const player = (this.player = dashjs.MediaPlayer().create());
    const retries = { MediaSegment: 8, InitializationSegment: 8, MPD: 8 };
    const intervals = { MediaSegment: 100, InitializationSegment: 100, MPD: 100 };
    player.updateSettings({
      streaming: {
        applyContentSteering: false, // `Places` does it.
        buffer: { bufferTimeDefault: AHEAD, bufferTimeAtTopQuality: AHEAD, bufferTimeAtTopQualityLongForm: AHEAD },
        retryAttempts: retries,
        retryIntervals: intervals,
        fragmentRequestTimeout: 20000,
        cmcd: { enabled: true, sid: session, cid: places.title, mode: 'query', version: 1 },
      },
    });
    if (licence) player.setProtectionData({ 'org.w3.clearkey': { serverURL: licence } });
    player.addRequestInterceptor((request) => {
      request.url = places.url(request.url);
      request.sentAt = performance.now();
      return Promise.resolve(request);
    });
    player.addResponseInterceptor(async (response) => {
      const { request } = response;
      if (response.status === 401) {
        await places.renewed(request.url); // dash.js asks again, and the other interceptor says where.
      } else if (!response.status || response.status >= 500) {
        places.failed(request.url, `no answer (${response.status || 'cut'})`);
      } else if (response.status < 300) {
        const now = performance.now();
        const path = new URL(request.url).pathname;
        tell.came({
          url: request.url,
          kind: kindOf(path),
          bytes: response.data ? (response.data.byteLength ?? response.data.length) : 0,
          firstByte: (response.resourceTiming?.responseStart ?? now) - (request.sentAt ?? now),
          whole: now - (request.sentAt ?? now),
          cacheStatus: response.headers?.['cache-status'] ?? null,
          ...spanOf(request),
        });
      }
      return response;
    });
  }

  start(place) {
    const { player } = this;
    const { events } = dashjs.MediaPlayer;
    player.on(events.STREAM_INITIALIZED, () => this.tell.ready());
    player.on(events.QUALITY_CHANGE_RENDERED, ({ mediaType, newRepresentation }) => {
      if (mediaType === 'video') this.tell.playing(newRepresentation.height, newRepresentation.bandwidth);
    });
    player.on(events.FRAGMENT_LOADING_COMPLETED, () => {
      this.tell.bandwidth(player.getAverageThroughput('video') * 1000);
    });
    player.on(events.BUFFER_LEVEL_STATE_CHANGED, () => {
      const end = this.video.buffered.length ? this.video.buffered.end(this.video.buffered.length - 1) : 0;
      if (end && end > this.video.duration - 1) this.tell.buffered();
    });
    const { DOWNLOAD_ERROR_ID_CONTENT_CODE, DOWNLOAD_ERROR_ID_INITIALIZATION_CODE } = dashjs.MediaPlayer.errors;
    const passing = [DOWNLOAD_ERROR_ID_CONTENT_CODE, DOWNLOAD_ERROR_ID_INITIALIZATION_CODE];
    player.on(events.ERROR, ({ error }) => {
      if (!passing.includes(error.code)) this.tell.fail(`${error.code}: ${error.message}`);
    });
    player.initialize(this.video, place.dash, false);
  }

  renditions() {
    return this.player.getRepresentationsByType('video').map((each) => ({ height: each.height, bps: each.bandwidth }));
  }

  choose(height) {
    const { player } = this;
    player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: height === null } } } });
    if (height === null) return;
    const wanted = player.getRepresentationsByType('video').find((each) => each.height === height);
    if (wanted) player.setRepresentationForTypeById('video', wanted.id, true);
  }

  stop() {
    this.player.destroy();
  }
}

/** When a segment of dash.js is shown. */
function spanOf(request) {
  const inner = request.customData?.request;
  const isSegment = inner && Number.isFinite(inner.startTime) && Number.isFinite(inner.duration);
  return isSegment ? { start: inner.startTime, duration: inner.duration } : { start: null, duration: null };
}

const PLAYERS = { hls: HlsPlayer, dash: DashPlayer };
