/** Video and audio by WebRTC, and the microphone in the other direction. */

const GATHERING_TIMEOUT_MS = 3000;
const CONNECT_TIMEOUT_MS = 10000;
// Wait, because the connection often recovers from a short interruption of the network.
const DISCONNECTED_TIMEOUT_MS = 3000;
// The same target for audio and video, whose delays the browser aligns only after some seconds.
const JITTER_BUFFER_MS = 100;

/**
 * @typedef {object} ReceiverStats
 * @property {number} timeMs Time of the measurement.
 * @property {number} numBits Bits received so far, audio and video.
 * @property {number} numDecoded Video frames decoded so far.
 * @property {number} numDropped Video frames dropped by the browser so far.
 * @property {?number} framesPerSecond Decoded video frames per second since the previous
 *   measurement.
 * @property {?number} skewMs Playout time of the audio minus that of the video, both on the
 *   sender's clock: positive when the audio is ahead.
 * @property {?number} bitrate Bits per second since the previous measurement.
 * @property {string} format Codec and size of the video.
 */

export class WebRtcMedia {
  kind = "WebRTC";
  /** Called once when an open connection is lost. */
  onlost = () => {};
  #connection;
  #sender;
  #audio;
  #timer = null;
  #previousStats = null;
  #fail = () => {};

  /** Whether this browser has WebRTC. */
  static isAvailable() {
    return typeof window.RTCPeerConnection === "function";
  }

  /**
   * Connect and wait until media can flow.
   *
   * @param {HTMLVideoElement} video Element that plays the face.
   * @param {RTCIceServer[]} iceServers STUN and TURN servers; may be empty.
   * @param {function(RTCSessionDescription): Promise<RTCSessionDescriptionInit>} sendOffer
   *   Sends the offer to the session and returns its answer.
   * @throws {Error} If there is no connection in time, or no common video codec.
   */
  async open(video, iceServers, sendOffer) {
    const connection = new RTCPeerConnection({ iceServers });
    this.#connection = connection;
    const closed = new Promise((_resolve, reject) => (this.#fail = reject));
    closed.catch(() => {});
    const stream = new MediaStream();
    connection.addEventListener("track", ({ track }) => stream.addTrack(track));
    // The microphone's track is added when the microphone is turned on, without a new offer.
    const audio = connection.addTransceiver("audio", { direction: "sendrecv" });
    this.#sender = audio.sender;
    this.#audio = audio.receiver.track;
    const receiver = connection.addTransceiver("video", { direction: "recvonly" });
    for (const one of connection.getReceivers()) one.jitterBufferTarget = JITTER_BUFFER_MS;

    await connection.setLocalDescription();
    await gatheringEnd(connection);
    await connection.setRemoteDescription(await sendOffer(connection.localDescription));
    if (receiver.currentDirection !== "recvonly") {
      throw new Error("The server and this browser have no video codec in common.");
    }
    video.srcObject = stream;
    await Promise.race([connected(connection), closed]);
    connection.addEventListener("connectionstatechange", () => this.#watch());
  }

  /** @param {?MediaStreamTrack} track Microphone, or null for none. */
  async setMicrophone(track) {
    await this.#sender?.replaceTrack(track);
  }

  /** @param {boolean} isMuted */
  setMuted(isMuted) {
    if (this.#audio) this.#audio.enabled = !isMuted;
  }

  /** @returns {Promise<object>} Figures measured at this receiver since the last call. */
  async stats() {
    const stats = await readReceiverStats(this.#connection, this.#previousStats);
    this.#previousStats = stats;
    return stats;
  }

  close() {
    clearTimeout(this.#timer);
    this.onlost = () => {};
    this.#connection?.close();
    this.#fail(new Error("The connection was closed."));
  }

  #watch() {
    clearTimeout(this.#timer);
    const state = this.#connection.connectionState;
    if (state === "failed" || state === "closed") this.#lose();
    if (state === "disconnected") {
      this.#timer = setTimeout(() => this.#lose(), DISCONNECTED_TIMEOUT_MS);
    }
  }

  #lose() {
    const { onlost } = this;
    this.close();
    onlost();
  }
}

/** Wait until all ICE candidates are known (the server wants them in the offer), at most 3 s. */
function gatheringEnd(connection) {
  return new Promise((resolve) => {
    const check = () => connection.iceGatheringState === "complete" && resolve();
    connection.addEventListener("icegatheringstatechange", check);
    setTimeout(resolve, GATHERING_TIMEOUT_MS);
    check();
  });
}

/** Wait until the connection is up. */
function connected(connection) {
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error("No direct connection to the server was possible."));
    const check = () => {
      if (connection.connectionState === "connected") resolve();
      if (connection.connectionState === "failed") fail();
    };
    connection.addEventListener("connectionstatechange", check);
    setTimeout(fail, CONNECT_TIMEOUT_MS);
    check();
  });
}

/**
 * Read the figures of a receiver from RTCPeerConnection.getStats.
 *
 * @param {RTCPeerConnection} connection
 * @param {?ReceiverStats} previous The measurement before, for rates.
 * @returns {Promise<ReceiverStats>}
 */
async function readReceiverStats(connection, previous) {
  const report = await connection.getStats();
  const inbound = { audio: {}, video: {} };
  for (const entry of report.values()) {
    if (entry.type === "inbound-rtp") inbound[entry.kind] = entry;
  }
  const { audio, video } = inbound;
  const timeMs = video.timestamp ?? audio.timestamp ?? performance.now();
  const numBits = 8 * ((audio.bytesReceived ?? 0) + (video.bytesReceived ?? 0));
  const numDecoded = video.framesDecoded ?? 0;
  const elapsedS = previous ? (timeMs - previous.timeMs) / 1000 : 0;
  const rate = (value, name) => (elapsedS > 0 ? (value - previous[name]) / elapsedS : null);
  return {
    timeMs,
    numBits,
    numDecoded,
    numDropped: video.framesDropped ?? 0,
    framesPerSecond: rate(numDecoded, "numDecoded"),
    skewMs: skew(audio, video),
    bitrate: rate(numBits, "numBits"),
    format: format(video, report.get(video.codecId)),
  };
}

/** Return null until both have received an RTCP sender report. */
function skew(audio, video) {
  const times = [audio.estimatedPlayoutTimestamp, video.estimatedPlayoutTimestamp];
  return times.every((time) => time > 0) ? times[0] - times[1] : null;
}

function format(video, codec) {
  const size = video.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : "";
  return [codec?.mimeType.replace("video/", ""), size].filter(Boolean).join(" ");
}
