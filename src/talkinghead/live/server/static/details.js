/** The panel of details: state, connection, rates and latencies. */

/** Stages of an answer, in their order: field of the event `timings`, label. */
const STAGES = [
  ["transcript_s", "Transcript"],
  ["first_token_s", "First word of the answer"],
  ["first_audio_s", "First audio"],
  ["first_frame_s", "First frame"],
];

export class Details {
  #server = {};
  #firstFrameS = null;

  /** @param {string} text State in words. */
  setState(text) {
    setText("figure-state", text);
  }

  /** @param {object} event Event `stats` of the server. */
  setServerStats(event) {
    this.#server = event;
  }

  /**
   * @param {string} kind "WebRTC" or "WebSocket".
   * @param {import("./webrtc_media.js").ReceiverStats} received
   */
  showStats(kind, received) {
    const { frames_per_second: generated, num_dropped: numDropped, generate_ms_p95: ms } =
      this.#server;
    setText("figure-connection", `${kind}, ${received.format}`);
    const fps = `${number(received.framesPerSecond)} received`;
    setText("figure-fps", generated === undefined ? fps : `${fps}, ${number(generated)} generated`);
    const dropped = `${received.numDropped} here`;
    setText(
      "figure-dropped",
      numDropped === undefined ? dropped : `${dropped}, ${numDropped} on the server`,
    );
    setText("figure-skew", signed(received.skewMs, "ms"));
    setText("figure-bitrate", `${number(received.bitrate / 1000)} kbit/s`);
    setText("figure-generation", `${number(ms)} ms`);
    this.#showSummary(received.framesPerSecond);
  }

  /** @param {object} event Event `timings` of the server: seconds after the end of the question. */
  showTimings(event) {
    // A typed question has no transcription.
    const stages = STAGES.filter(([field]) => event[field] > 0);
    const longestS = Math.max(...stages.map(([field]) => event[field]));
    const rows = stages.map(([field, label]) => latencyRow(label, event[field], longestS));
    document.getElementById("latency").replaceChildren(...rows);
    this.#firstFrameS = event.first_frame_s ?? null;
  }

  /** Clear the measurements of a lost connection. */
  clear() {
    this.#server = {};
    for (const name of ["connection", "fps", "dropped", "skew", "bitrate", "generation"]) {
      setText(`figure-${name}`, "–");
    }
    setText("summary", "");
  }

  #showSummary(framesPerSecond) {
    const parts = [`${number(framesPerSecond)} fps`];
    if (this.#firstFrameS !== null) parts.push(`answer in ${this.#firstFrameS.toFixed(1)} s`);
    setText("summary", parts.join(", "));
  }
}

function latencyRow(label, timeS, longestS) {
  const row = document.createElement("div");
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  const bar = document.createElement("span");
  term.textContent = label;
  value.textContent = `${timeS.toFixed(2)} s`;
  bar.className = "bar";
  bar.style.setProperty("--share", timeS / longestS);
  row.append(term, value, bar);
  return row;
}

function number(value) {
  return Number.isFinite(value) ? Math.round(value).toString() : "–";
}

function signed(value, unit) {
  if (!Number.isFinite(value)) return "–";
  const rounded = Math.round(value);
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : ""}${Math.abs(rounded)} ${unit}`;
}

function setText(id, text) {
  document.getElementById(id).textContent = text;
}
