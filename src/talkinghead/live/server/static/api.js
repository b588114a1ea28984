/**
 * Requests to the server. Addresses are relative to the page, so that the server also works behind
 * a path prefix of a reverse proxy.
 */

const DOWNLOAD_TIMEOUT_MS = 60000;

/** An error whose message can be shown to the user. */
export class ApiError extends Error {
  /**
   * @param {string} message What went wrong.
   * @param {number} status HTTP status, 0 if the server was not reached.
   * @param {?number} retryAfterS Seconds to wait before the next attempt, if the server sent it.
   */
  constructor(message, status, retryAfterS = null) {
    super(sentence(message));
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** Return a message of the server with an initial capital and a full stop. */
export function sentence(message) {
  return message.charAt(0).toUpperCase() + message.slice(1) + (/[.!?…]$/.test(message) ? "" : ".");
}

/** Client of the API. The token is sent in headers, which browsers and servers do not log. */
export class Api {
  /** @param {?string} token Access token, or null for a server without one. */
  constructor(token) {
    this.token = token;
  }

  /** @returns {Promise<object>} Voices, language models, personas, faces and limits. */
  config() {
    return this.#json("GET", "v1/config");
  }

  /** @param {object} choices Any of avatar, voice, llm and persona. */
  createSession(choices) {
    return this.#json("POST", "v1/sessions", choices);
  }

  session(id) {
    return this.#json("GET", sessionPath(id));
  }

  updateSession(id, changes) {
    return this.#request("PATCH", sessionPath(id), changes);
  }

  deleteSession(id) {
    return this.#request("DELETE", sessionPath(id));
  }

  /** @returns {Promise<RTCSessionDescriptionInit>} The server's answer. */
  offer(id, description) {
    const { sdp, type } = description;
    return this.#json("POST", sessionPath(id, "/offer"), { sdp, type });
  }

  /** Send a question to the agent. */
  ask(id, text) {
    return this.#request("POST", sessionPath(id, "/ask"), { text });
  }

  /** Let the face speak this text unchanged. */
  say(id, text) {
    return this.#request("POST", sessionPath(id, "/say"), { text });
  }

  interrupt(id) {
    return this.#request("POST", sessionPath(id, "/interrupt"));
  }

  /**
   * Save the last answer as a file.
   *
   * @param {string} id Session.
   * @param {"recording"|"subtitles"} what MP4 or SRT.
   */
  async download(id, what) {
    const response = await this.#request("GET", sessionPath(id, `/${what}`));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = what === "recording" ? "answer.mp4" : "answer.srt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), DOWNLOAD_TIMEOUT_MS);
  }

  /** Upload a face. Call it only after the user has confirmed the consent. */
  uploadAvatar(file) {
    const form = new FormData();
    form.append("file", file);
    form.append("consent", "true");
    return this.#json("POST", "v1/avatars", form);
  }

  /** @returns {WebSocket} Events of a session. */
  openEvents(id) {
    return this.#openSocket(sessionPath(id, "/events"));
  }

  /**
   * Start a session that uses one WebSocket for audio, images and events, and ends with it.
   *
   * @param {object} choices Any of avatar, voice and llm.
   * @param {number} sampleRate
   * @returns {WebSocket}
   */
  openStream(choices, sampleRate) {
    const chosen = Object.entries(choices).filter(([, value]) => value !== undefined);
    const query = { ...Object.fromEntries(chosen), sample_rate: sampleRate, image: "jpeg" };
    return this.#openSocket("v1/stream", query);
  }

  #openSocket(path, query = {}) {
    const url = new URL(path, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams(query).toString();
    // The browser's WebSocket cannot send an Authorization header, and URLs are written to logs.
    const protocols = this.token ? ["talkinghead", `talkinghead.token.${base64Url(this.token)}`] : [];
    return new WebSocket(url, protocols);
  }

  async #json(method, path, body) {
    return (await this.#request(method, path, body)).json();
  }

  async #request(method, path, body) {
    const headers = {};
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (body !== undefined && !(body instanceof FormData)) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), { method, headers, body });
    } catch {
      throw new ApiError("The server cannot be reached.", 0);
    }
    if (!response.ok) throw await responseError(response);
    return response;
  }
}

/** Encode a text as UTF-8 in base64url without padding. */
function base64Url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function sessionPath(id, rest = "") {
  return `v1/sessions/${encodeURIComponent(id)}${rest}`;
}

/** Return the error of a response: the server's own message if it sent one. */
async function responseError(response) {
  let message = `The server answered with status ${response.status}.`;
  try {
    const { error } = await response.json();
    if (typeof error?.message === "string") message = error.message;
  } catch {
    // The body is not JSON, for example if a proxy sent it: show only the status.
  }
  const retryAfterS = Number(response.headers.get("Retry-After"));
  return new ApiError(message, response.status, retryAfterS > 0 ? retryAfterS : null);
}
