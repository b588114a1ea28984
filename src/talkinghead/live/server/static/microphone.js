/**
 * The microphone, and its button: a short press turns it on or off, a long press is push-to-talk.
 */

const HOLD_MS = 300;
const LEVEL_INTERVAL_MS = 60;
const LOWEST_LEVEL_DB = -60;
const HIGHEST_LEVEL_DB = -15;

const MESSAGES = {
  NotAllowedError:
    "The browser does not allow this page to use the microphone. Allow it in the address bar, " +
    "or type your question.",
  NotFoundError: "No microphone was found. Connect one, or type your question.",
  NotReadableError:
    "The microphone is in use by another program. Close it there, or type your question.",
};

/** The device: permission, track and level. */
class Microphone {
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
        "Browsers give the microphone only to pages of this computer or with https. Type your " +
          "question, or open the page by https.",
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

export class MicrophoneButton {
  #button;
  #handlers;
  #microphone = new Microphone();
  /** Whether the microphone should be on once the user has allowed it. */
  #isWanted = false;
  /** @type {?{wasOn: boolean, startMs: number}} The current press. */
  #press = null;

  /**
   * @param {HTMLButtonElement} button
   * @param {object} handlers
   * @param {function(MediaStreamTrack): void} handlers.onTrack The microphone was opened.
   * @param {function(): void} handlers.onChange It was turned on or off.
   * @param {function(string): void} handlers.onError A message for the user.
   */
  constructor(button, handlers) {
    this.#button = button;
    this.#handlers = handlers;
    this.#microphone.onended = () => {
      this.turnOff();
      handlers.onError("The microphone was disconnected.");
    };
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      this.press();
    });
    button.addEventListener("pointerup", () => this.release());
    button.addEventListener("pointercancel", () => this.release());
    button.addEventListener("click", (event) => this.#click(event));
    window.addEventListener("blur", () => this.release());
    setInterval(() => this.#showLevel(), LEVEL_INTERVAL_MS);
  }

  get isOn() {
    return this.#microphone.isOn;
  }

  /** @returns {?MediaStreamTrack} */
  get track() {
    return this.#microphone.track;
  }

  /** Begin a press, by pointer or keyboard. */
  press() {
    if (this.#press || this.#button.disabled) return;
    this.#press = { wasOn: this.isOn, startMs: performance.now() };
    if (!this.isOn) this.turnOn();
  }

  /** End a press. @returns {boolean} Whether there was one. */
  release() {
    if (!this.#press) return false;
    const isHold = performance.now() - this.#press.startMs > HOLD_MS;
    if (this.#press.wasOn || isHold) this.turnOff();
    this.#press = null;
    return true;
  }

  /** Turn the microphone on, after asking for it the first time. */
  async turnOn() {
    this.#isWanted = true;
    try {
      const isNew = !this.track;
      await this.#microphone.open();
      if (isNew) this.#handlers.onTrack(this.track);
      this.#microphone.setOn(this.#isWanted);
    } catch (error) {
      this.#isWanted = false;
      this.#handlers.onError(error.message);
    }
    this.#show();
  }

  turnOff() {
    this.#isWanted = false;
    this.#microphone.setOn(false);
    this.#show();
  }

  /** A click without a pointer comes from the Enter key or a screen reader. */
  #click(event) {
    if (event.detail > 0) return;
    if (this.isOn) this.turnOff();
    else this.turnOn();
  }

  #show() {
    this.#button.setAttribute("aria-pressed", String(this.isOn));
    this.#handlers.onChange();
  }

  #showLevel() {
    this.#button.style.setProperty("--level", this.#microphone.level().toFixed(2));
  }
}
