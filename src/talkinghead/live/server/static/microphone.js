/** The microphone: permission, track and level. */

const LOWEST_LEVEL_DB = -60;
const HIGHEST_LEVEL_DB = -15;

const MESSAGES = {
  NotAllowedError:
    "The browser does not allow this page to use the microphone. Allow it in the address bar, or type your question.",
  NotFoundError: "No microphone was found. Connect one, or type your question.",
  NotReadableError: "The microphone is in use by another program. Close it there, or type your question.",
};

export class Microphone {
  /** @type {?MediaStreamTrack} */
  track = null;
  /** Called when the device is unplugged or the permission is withdrawn. */
  onended = () => {};
  #context = null;
  #analyser = null;
  #samples = null;

  /**
   * Ask for the microphone. The track is off at first.
   *
   * @throws {Error} With a message for the user.
   */
  async open() {
    if (this.track) return;
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(
        "Browsers give the microphone only to pages of this computer or with https. Type your question, or open the page by https.",
      );
    }
    const constraints = {
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia(constraints);
    } catch (error) {
      throw new Error(MESSAGES[error.name] ?? `The microphone does not work: ${error.message}`);
    }
    [this.track] = stream.getAudioTracks();
    this.track.enabled = false;
    this.track.addEventListener("ended", () => this.#end());
    this.#context = new AudioContext();
    this.#analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#context.createMediaStreamSource(stream).connect(this.#analyser);
  }

  get isOn() {
    return this.track?.enabled ?? false;
  }

  /** Turn the open microphone on or off. While it is off the browser sends silence. */
  setOn(isOn) {
    if (this.track) this.track.enabled = isOn;
  }

  /** @returns {number} Level from 0 (silence) to 1 (loud speech). */
  level() {
    if (!this.isOn) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0);
    const decibels = 10 * Math.log10(power / this.#samples.length + 1e-10);
    const level = (decibels - LOWEST_LEVEL_DB) / (HIGHEST_LEVEL_DB - LOWEST_LEVEL_DB);
    return Math.min(1, Math.max(0, level));
  }

  #end() {
    this.track = null;
    this.#context.close();
    this.onended();
  }
}
