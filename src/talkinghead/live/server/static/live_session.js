/**
 * One conversation: the session on the server, its media and its events, and their reconnection
 * after the connection was lost.
 */

import { ApiError, sentence } from "./api.js";
import { SAMPLE_RATE, StreamMedia } from "./stream_media.js";
import { WebRtcMedia } from "./webrtc_media.js";

const BACKOFF_S = [0.5, 1, 2, 4, 8];
const OPEN_TIMEOUT_MS = 10000;
// A full server sends the latest time at which a session ends; one may end earlier.
const MAX_WAIT_S = 15;
// HTTP statuses for a session that no longer exists.
const GONE = [404, 410];
const LOST = "The connection was lost.";

const ENDED = {
  idle: "The session ended because nobody used it.",
  "time limit": "The session ended because it reached its time limit.",
  deleted: "The session was ended.",
};

/** An end of the session that a reconnection does not change. */
class SessionEnded extends Error {}

/**
 * @typedef {object} Handlers
 * @property {function("connecting"|"live"|"waiting"|"ended", string): void} onConnection Progress
 *   of the connection, with a sentence for the user.
 * @property {function(object): void} onEvent An event of the server.
 * @property {function(boolean): void} onSession A session is used; true if it is a new one.
 * @property {function(string): void} onNotice A message for the user.
 * @property {function(): void} onTokenNeeded The server refused the token.
 */

export class LiveSession {
  /** @type {?string} */
  id = null;
  /** @type {?(WebRtcMedia|StreamMedia)} */
  media = null;
  #api;
  #elements;
  #handlers;
  #choices = {};
  #iceServers = [];
  #events = null;
  /** Ends the current run of `#stayConnected`, which `#running` waits for. */
  #run = null;
  #running = Promise.resolve();
  #useStream = !WebRtcMedia.isAvailable();
  #hasUsedWebRtc = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {{video: HTMLVideoElement, canvas: HTMLCanvasElement}} elements
   * @param {Handlers} handlers
   */
  constructor(api, elements, handlers) {
    this.#api = api;
    this.#elements = elements;
    this.#handlers = handlers;
  }

  /**
   * Connect, and stay connected until `stop` or the end of the session.
   *
   * @param {object} choices Avatar, voice, llm, persona, emotion and pose of a new session.
   * @param {RTCIceServer[]} iceServers
   * @param {?string} id A session to continue, if it still exists.
   */
  start(choices, iceServers, id = null) {
    this.#run = new AbortController();
    this.#choices = choices;
    this.#iceServers = iceServers;
    this.id = id;
    if (this.#useStream) this.#handlers.onNotice(withoutWebRtc("This browser has no WebRTC."));
    this.#running = this.#stayConnected(this.#run.signal);
  }

  /** Set the choices of the next session, for example after the current session was lost. */
  setChoices(choices) {
    this.#choices = choices;
  }

  /** Disconnect and end the session on the server. */
  async stop() {
    this.#run?.abort();
    this.#disconnect();
    await this.#running;
    await this.#end();
  }

  /**
   * @param {"ask"|"say"} mode Send a question to the agent, or let the face say the text.
   * @param {string} text
   */
  async send(mode, text) {
    if (this.media.kind === "WebSocket") this.media.send(mode, text);
    else await this.#api[mode](this.id, text);
  }

  async interrupt() {
    if (this.media.kind === "WebSocket") this.media.send("interrupt");
    else await this.#api.interrupt(this.id);
  }

  /** Connect repeatedly: each time, wait until the connection is lost. */
  async #stayConnected(signal) {
    let attempt = 0;
    while (!signal.aborted) {
      let waitS = 0;
      try {
        this.#handlers.onConnection("connecting", attempt ? "Reconnecting…" : "Connecting…");
        const { loss } = await this.#connect(signal);
        attempt = 0;
        this.#handlers.onConnection("live", "");
        await loss;
      } catch (error) {
        if (signal.aborted || this.#isEnd(error)) return;
        waitS = error.retryAfterS ?? BACKOFF_S[Math.min(attempt, BACKOFF_S.length - 1)];
        waitS = Math.min(waitS, MAX_WAIT_S);
        this.#handlers.onConnection("waiting", `${error.message} Trying again…`);
      }
      this.#disconnect();
      attempt += 1;
      await pause(waitS, signal);
    }
  }

  /** Handle an error after which a new attempt is useless; return whether it is one. */
  #isEnd(error) {
    const isRefused = error instanceof ApiError && error.status >= 400 && error.status < 500;
    const isTemporary = [...GONE, 408, 429].includes(error.status);
    if (!(error instanceof SessionEnded) && !(isRefused && !isTemporary)) return false;
    this.#disconnect();
    this.#run.abort();
    this.id = null;
    this.#handlers.onConnection("ended", error.message);
    if (error.status === 401) this.#handlers.onTokenNeeded();
    return true;
  }

  /**
   * Open session, events and media.
   *
   * @returns {Promise<{loss: Promise<never>}>} A promise rejected when the connection is lost.
   */
  async #connect(signal) {
    let lose;
    const loss = new Promise((_resolve, reject) => (lose = reject));
    // Handle a rejection that occurs before the promise is awaited.
    loss.catch(() => {});
    signal.addEventListener("abort", () => lose(new Error(LOST)));
    const media = this.#useStream ? await this.#openStream(lose) : await this.#openWebRtc(lose);
    if (signal.aborted) throw new Error("stopped");
    media.onlost = () => lose(new Error(LOST));
    return { loss };
  }

  /** Open events and WebRTC; if WebRTC does not work here, open the WebSocket stream. */
  async #openWebRtc(lose) {
    await this.#ensureSession();
    await this.#openEvents(lose);
    const media = new WebRtcMedia();
    this.media = media;
    const sendOffer = (offer) => this.#api.offer(this.id, offer);
    try {
      await media.open(this.#elements.video, this.#iceServers, sendOffer);
    } catch (error) {
      // If WebRTC worked before, the network is down, and WebSocket would not work either.
      const isRefused = error.status === 422;
      if (this.#hasUsedWebRtc || (error instanceof ApiError && !isRefused)) throw error;
      await this.#end();
      this.#useStream = true;
      this.#handlers.onNotice(withoutWebRtc(error.message));
      return this.#openStream(lose);
    }
    this.#hasUsedWebRtc = true;
    return media;
  }

  async #openStream(lose) {
    const media = new StreamMedia();
    this.media = media;
    media.onevent = (event) => this.#receive(event, lose);
    // A persona can be too long for a URL, and a pose is a list.
    const { persona, pose, ...choices } = this.#choices;
    const socket = this.#api.openStream(choices, SAMPLE_RATE);
    this.id = await media.open(socket, this.#elements.canvas);
    if (persona !== undefined || pose !== undefined) {
      await this.#api.updateSession(this.id, { persona, pose });
    }
    this.#handlers.onSession(true);
    return media;
  }

  /** Continue the session if it still exists, or create one. */
  async #ensureSession() {
    if (this.id) {
      try {
        await this.#api.session(this.id);
        this.#handlers.onSession(false);
        return;
      } catch (error) {
        if (!GONE.includes(error.status)) throw error;
      }
    }
    this.id = (await this.#api.createSession(this.#choices)).id;
    this.#handlers.onSession(true);
  }

  async #openEvents(lose) {
    const socket = this.#api.openEvents(this.id);
    this.#events = socket;
    await new Promise((resolve, reject) => {
      const fail = () => reject(new Error(LOST));
      socket.addEventListener("open", resolve);
      socket.addEventListener("close", fail);
      setTimeout(fail, OPEN_TIMEOUT_MS);
    });
    socket.addEventListener("close", () => lose(new Error(LOST)));
    socket.addEventListener("message", ({ data }) => this.#receive(JSON.parse(data), lose));
  }

  #receive(event, lose) {
    if (event.type !== "closed") {
      // Errors of the server have the format of HTTP errors, unlike those of the session.
      const message = sentence(event.message ?? event.error?.message ?? "");
      this.#handlers.onEvent(event.type === "error" ? { ...event, message } : event);
      return;
    }
    this.id = null;
    if (event.reason in ENDED) lose(new SessionEnded(ENDED[event.reason]));
    else if (event.reason === "shutdown") lose(new Error("The server was shut down."));
    else lose(new Error("The session failed on the server."));
  }

  async #end() {
    this.#disconnect();
    const { id } = this;
    this.id = null;
    // Ignore the error if the session has already ended.
    if (id) await this.#api.deleteSession(id).catch(() => {});
  }

  #disconnect() {
    this.media?.close();
    this.media = null;
    this.#events?.close();
    this.#events = null;
  }
}

function withoutWebRtc(reason) {
  return `${reason} The video now comes by WebSocket: you can type, but not talk.`;
}

/** Wait, but not longer than until the network is back or the session is stopped. */
async function pause(seconds, signal) {
  const listening = new AbortController();
  const options = { signal: listening.signal };
  await new Promise((resolve) => {
    setTimeout(resolve, 1000 * seconds);
    window.addEventListener("online", resolve, options);
    signal.addEventListener("abort", resolve, options);
  });
  listening.abort();
}
