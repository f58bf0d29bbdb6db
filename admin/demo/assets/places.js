// Where a film is played from. Steering says it when the viewer presses play, and again every few seconds; between two
// answers the viewer's own experience counts: who does not answer is left at once, for the next of the list.
//
// Players that reach appliances by names of their own at the usual ports do this by themselves, from what the manifests
// say of content steering (`oca-admin publish --steering`). Here all appliances are ports of one address, which content
// steering can't name.
'use strict';

/** Seconds for which a place that failed is not tried again, unless all have. */
const SHUNNED = 20;

class Places {
  /**
   * `playback` is steering's answer to pressing play. `told(event)` hears of each change: {from, to, why, at}.
   * `pressPlay()` promises another such answer, for when the time of this one's URLs is over.
   */
  constructor(playback, told, pressPlay) {
    this.title = playback.title;
    this.list = playback.places;
    this.current = this.list[0];
    this.told = told;
    this.pressPlay = pressPlay;
    this.renewal = null;
    this.failedAt = new Map();
    this.question = playback.content_steering;
    this.bps = null;
    this.timer = setTimeout(() => this.ask(), playback.ttl * 1000);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** The same file at the place that is current: whatever place, token and port stand before /titles/ID/. */
  url(original) {
    const mark = `/titles/${this.title}/`;
    const at = original.indexOf(mark);
    return at < 0 ? original : this.current.base_url + original.slice(at + mark.length);
  }

  /** Who gave this answer. */
  of(url) {
    return this.list.find((place) => url.startsWith(new URL(place.base_url).origin)) ?? null;
  }

  /** A request to this URL failed. Whether there is another place to try. */
  failed(url, why) {
    const place = this.of(url);
    if (place) this.failedAt.set(place.id, performance.now());
    if (place && place !== this.current) return true; // It was left meanwhile.
    const next = this.list.find((each) => each !== this.current && this.isFit(each))
      ?? this.list[(this.list.indexOf(this.current) + 1) % this.list.length];
    if (next === this.current) return false;
    this.go(next, why);
    return true;
  }

  /**
   * A request to this URL was not let in (401): its token's time is over, or its key was withdrawn. Play is pressed
   * again, once for all that are refused at the same time. Promises whether there is another URL to try.
   */
  renewed(url) {
    if (!url.startsWith(this.current.base_url)) return Promise.resolve(true); // It was signed anew meanwhile.
    this.renewal ??= this.pressPlay()
      .then((playback) => this.take(playback), () => false)
      .finally(() => { this.renewal = null; });
    return this.renewal;
  }

  /** New URLs. Whoever plays goes on to play, if it is still among the places. */
  take(playback) {
    this.list = playback.places;
    const same = this.list.find((place) => place.id === this.current.id);
    if (same) this.current = same;
    else this.go(this.list[0], 'steering');
    return true;
  }

  isFit(place) {
    const at = this.failedAt.get(place.id);
    return at === undefined || performance.now() - at > SHUNNED * 1000;
  }

  go(place, why) {
    const from = this.current;
    this.current = place;
    this.told({ from: from.id, to: place.id, why, at: performance.now() });
  }

  /** Ask steering again, for ever. Without an answer everything stays as it is. */
  async ask() {
    let ttl = 5;
    try {
      const more = this.bps ? `&bps=${Math.round(this.bps)}` : '';
      const answer = await fetch(`${this.question}&current=${encodeURIComponent(this.current.id)}${more}`);
      if (answer.ok) {
        const said = await answer.json();
        ttl = said.TTL;
        this.heed(said['PATHWAY-PRIORITY']);
      }
    } catch {
      // Steering is away: the film goes on.
    }
    if (this.timer !== null) this.timer = setTimeout(() => this.ask(), Math.max(1, ttl) * 1000);
  }

  /** The places in steering's order. Those that it does not name any more come last. */
  heed(ids) {
    const rank = (place) => (ids.includes(place.id) ? ids.indexOf(place.id) : ids.length);
    this.list = [...this.list].sort((one, other) => rank(one) - rank(other));
    const best = this.list.find((place) => this.isFit(place));
    if (best && best !== this.current) this.go(best, 'steering');
  }
}
