/**
 * A session by WebSocket, for browsers or networks without WebRTC: JPEG images on a canvas, in
 * synchrony with PCM audio on the audio clock, and the events.
 */

import { ApiError } from "./api.js";

export const SAMPLE_RATE = 24000;
// Time between the arrival of audio and its playback, to compensate for network jitter.
const BUFFER_S = 0.15;
// Longest buffer. Beyond it, frames without speech are skipped.
const MAX_BUFFER_S = 0.5;
const MAX_IMAGES = 50;
// The server loads the face before it responds.
const OPEN_TIMEOUT_MS = 60000;
// Close code of a WebSocket whose request was refused, unless the server is full.
const REFUSED = 1008;

export class StreamMedia {
  kind = "WebSocket";
  onlost = () => {};
  /** Called with each event of the session. */
  onevent = () => {};
  #socket;
  #canvas;
  #context;
  #gain;
  #header = null;
  #offsetS = null;
  #images = [];
  #animation = 0;
  #skewMs = null;
  #counts = newCounts();
  #numDropped = 0;

  /**
   * @param {WebSocket} socket Stream of a new session.
   * @param {HTMLCanvasElement} canvas Canvas that shows the face.
   * @returns {Promise<string>} Id of the session.
   * @throws {ApiError} If the server refuses the session.
   */
  async open(socket, canvas) {
    this.#socket = socket;
    this.#canvas = canvas;
    socket.binaryType = "arraybuffer";
    // Use the rate of the stream, because buffers that are resampled one by one click at the edges.
    this.#context = new AudioContext({ sampleRate: SAMPLE_RATE });
    this.#gain = new GainNode(this.#context);
    this.#gain.connect(this.#context.destination);
    this.#context.addEventListener("statechange", () => this.#changeClock());
    socket.addEventListener("message", ({ data }) => this.#receive(data));
    const id = await sessionOf(socket);
    socket.addEventListener("close", () => this.onlost());
    this.#animation = requestAnimationFrame(() => this.#draw());
    return id;
  }

  /**
   * Send a command to the session.
   *
   * @param {"ask"|"say"|"interrupt"} type
   * @param {string} [text]
   */
  send(type, text) {
    this.#socket.send(JSON.stringify({ type, text }));
  }

  /** The microphone needs WebRTC. */
  async setMicrophone() {}

  /** Whether the browser plays audio only after a click. */
  get isSuspended() {
    return this.#context?.state === "suspended";
  }

  /** Play the audio; call this method in the handler of a click. */
  resume() {
    return this.#context.resume();
  }

  /** @param {boolean} isMuted */
  setMuted(isMuted) {
    if (this.#gain) this.#gain.gain.value = isMuted ? 0 : 1;
  }

  async stats() {
    const { numBytes, numImages, startMs } = this.#counts;
    const elapsedS = (performance.now() - startMs) / 1000;
    this.#counts = newCounts();
    return {
      framesPerSecond: numImages / elapsedS,
      numDropped: this.#numDropped,
      skewMs: this.#skewMs,
      bitrate: (8 * numBytes) / elapsedS,
      format: `JPEG ${this.#canvas.width} × ${this.#canvas.height}`,
    };
  }

  close() {
    this.onlost = () => {};
    cancelAnimationFrame(this.#animation);
    this.#socket?.close();
    this.#context?.close();
    this.#images.forEach(({ bitmap }) => bitmap.close());
    this.#images = [];
  }

  /** A JSON header announces the samples and the image of the binary message after it. */
  #receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "frame") this.#header = message;
      else this.onevent(message);
      return;
    }
    if (!this.#header) return;
    const header = this.#header;
    this.#header = null;
    this.#counts.numBytes += data.byteLength;
    const playAtS = this.#schedule(header);
    if (playAtS === null) return;
    const numAudioBytes = 2 * header.num_samples;
    this.#playAudio(new Int16Array(data, 0, header.num_samples), playAtS);
    if (header.num_image_bytes > 0) this.#addImage(data.slice(numAudioBytes), playAtS);
  }

  /** Return when to play a frame on the audio clock, or null to skip it. */
  #schedule({ time_s, reply }) {
    const nowS = this.#nowS();
    if (this.#offsetS === null) this.#offsetS = nowS + BUFFER_S - time_s;
    const aheadS = time_s + this.#offsetS - nowS;
    if (aheadS < 0) this.#offsetS += BUFFER_S - aheadS;
    if (aheadS > MAX_BUFFER_S && reply === null) {
      this.#offsetS = null;
      this.#numDropped += 1;
      return null;
    }
    return time_s + this.#offsetS;
  }

  /** The time of the audio clock, which stands still while the browser refuses to play. */
  #nowS() {
    return this.isSuspended ? performance.now() / 1000 : this.#context.currentTime;
  }

  #changeClock() {
    this.#offsetS = null;
    while (this.#images.length) this.#dropImage();
  }

  #playAudio(samples, playAtS) {
    if (samples.length === 0 || this.isSuspended) return;
    const buffer = this.#context.createBuffer(1, samples.length, SAMPLE_RATE);
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32768;
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#gain);
    source.start(playAtS);
  }

  async #addImage(bytes, playAtS) {
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    this.#images.push({ bitmap, playAtS });
    this.#images.sort((a, b) => a.playAtS - b.playAtS);
    // Browsers do not call `#draw` while the page is in the background.
    while (this.#images.length > MAX_IMAGES) this.#dropImage();
  }

  /** Show the newest image whose playback time has been reached. */
  #draw() {
    this.#animation = requestAnimationFrame(() => this.#draw());
    const heardS = this.#nowS() - (this.#context.outputLatency || 0);
    while (this.#images.length > 1 && this.#images[1].playAtS <= heardS) this.#dropImage();
    if (!this.#images.length || this.#images[0].playAtS > heardS) return;
    const { bitmap, playAtS } = this.#images.shift();
    const { width, height } = bitmap;
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
      this.#canvas.dispatchEvent(new Event("resize"));
    }
    this.#canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    this.#counts.numImages += 1;
    this.#skewMs = 1000 * (heardS - playAtS);
  }

  #dropImage() {
    this.#images.shift().bitmap.close();
    this.#numDropped += 1;
  }
}

function newCounts() {
  return { numBytes: 0, numImages: 0, startMs: performance.now() };
}

/** Wait for the first message of the server: the id of the session, or an error. */
function sessionOf(socket) {
  return new Promise((resolve, reject) => {
    let message = "The server closed the video stream.";
    socket.addEventListener("message", ({ data }) => {
      const event = typeof data === "string" ? JSON.parse(data) : {};
      if (event.type === "session") resolve(event.id);
      if (event.type === "error") message = event.error.message;
    });
    socket.addEventListener("close", ({ code }) => {
      reject(new ApiError(message, code === REFUSED ? 422 : 0));
    });
    setTimeout(() => reject(new ApiError("The server does not respond.", 0)), OPEN_TIMEOUT_MS);
  });
}
