// What a viewer feels of all that: how full the buffer is, and whether the picture had to stop.
'use strict';

/** Near the end a buffer empties because there is nothing more to come. */
const NEAR_END = 0.5;

class Felt {
  /** `duration` of the film, in seconds. */
  constructor(video, duration) {
    this.video = video;
    this.duration = duration;
    this.hasBegun = false;
    this.stalls = 0;
    /** Seconds; null before the picture moves. */
    this.leastBuffer = null;
    video.addEventListener('playing', () => { this.hasBegun = true; });
    video.addEventListener('waiting', () => { this.stalls += this.hasBegun && !video.seeking; });
    setInterval(() => this.look(), 100);
  }

  /** Seconds that are there from the picture on. */
  ahead() {
    const { buffered, currentTime } = this.video;
    for (let part = 0; part < buffered.length; part += 1) {
      if (buffered.start(part) <= currentTime + 0.1 && currentTime < buffered.end(part)) {
        return buffered.end(part) - currentTime;
      }
    }
    return 0;
  }

  /** Whether all that is left of the film is there. */
  isWhole() {
    return this.video.currentTime + this.ahead() > this.duration - NEAR_END;
  }

  look() {
    if (this.hasBegun && !this.isWhole()) this.leastBuffer = Math.min(this.leastBuffer ?? Infinity, this.ahead());
  }
}
