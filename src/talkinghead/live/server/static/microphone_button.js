/** The button of the microphone: a short press turns it on or off, a long press is push-to-talk. */

import { Microphone } from "./microphone.js";

const HOLD_MS = 300;
const LEVEL_INTERVAL_MS = 60;

export class MicrophoneButton {
  #button;
  #handlers;
  #microphone = new Microphone();
  /** Whether the microphone should be on once the user has allowed it. */
  #isWanted = false;
  /** @type {?{wasOn: boolean, startMs: number}} The press that is going on. */
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
