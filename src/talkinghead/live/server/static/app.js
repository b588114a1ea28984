/** The page: connects the controls with the session, the microphone and the panels. */

import { Api } from "./api.js";
import { Details } from "./details.js";
import { LiveSession } from "./live_session.js";
import { MicrophoneButton } from "./microphone.js";
import { Settings } from "./settings.js";
import { saveConversation, saveToken, takeConversation, takeToken } from "./tab_storage.js";
import { Transcript } from "./transcript.js";

const STATS_INTERVAL_MS = 1000;

const STATES = {
  offline: "Not connected",
  connecting: "Connecting",
  waiting: "Reconnecting",
  idle: "Ready",
  listening: "Listening",
  thinking: "Thinking",
  speaking: "Speaking",
};

const byId = (id) => document.getElementById(id);
const video = byId("video");
const canvas = byId("canvas");

const api = new Api(takeToken());
const microphone = new MicrophoneButton(byId("microphone"), {
  onTrack: (track) => session.media?.setMicrophone(track),
  onChange: showHint,
  onError: showMicrophoneError,
});
const transcript = new Transcript(byId("transcript"), byId("transcript-empty"));
const details = new Details();
const settings = new Settings(api, applySettings);
const session = new LiveSession(api, { video, canvas }, {
  onConnection: showConnection,
  onEvent: handleEvent,
  onSession: (isNew) => isNew && transcript.startSession(),
  onNotice: showNotice,
  onTokenNeeded: askForToken,
});

let iceServers = [];
let isLive = false;
/** Whether the user has muted the face. */
let isMuted = false;
/** Whether the answer was interrupted, so that audio that still arrives is not played. */
let isInterrupted = false;
/** State of the session on the server. */
let serverState = "idle";
/** @type {?{mode: string, text: string}} A text that was typed before the connection. */
let pendingText = null;
/** Id of the session before the page was reloaded. */
let earlierSession = restoreAfterReload();

connectControls();
loadConfig();
setInterval(showStats, STATS_INTERVAL_MS);

// ---- Token and reload ----

/** Store the conversation, so that it continues after a reload. */
function saveForReload() {
  if (!session.id) return;
  saveConversation({ id: session.id, choices: settings.choices, messages: transcript.save() });
}

/** @returns {?string} Id of the session before the reload. */
function restoreAfterReload() {
  const conversation = takeConversation();
  if (!conversation) return null;
  settings.choices = conversation.choices;
  transcript.restore(conversation.messages);
  byId("start-text").textContent = "Continue the conversation.";
  return conversation.id;
}

/** Load the server's lists. @returns {Promise<boolean>} Whether they were loaded. */
async function loadConfig() {
  try {
    const config = await api.config();
    settings.setConfig(config);
    iceServers = config.ice_servers;
    byId("message").maxLength = config.limits.max_text_chars;
    // If the server draws a label into the images, the page does not show another one.
    byId("face").dataset.labelled = String(Boolean(config.label));
    byId("settings-open").disabled = false;
    return true;
  } catch (error) {
    if (error.status === 401) askForToken();
    else showNotice(error.message);
    return false;
  }
}

function askForToken() {
  const dialog = byId("token-dialog");
  if (dialog.open) return;
  byId("token-text").textContent = api.token
    ? "The server did not accept the token."
    : "This server asks for its access token.";
  byId("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
}

async function useToken() {
  if (byId("token-dialog").returnValue !== "apply") return;
  api.token = byId("token").value.trim();
  saveToken(api.token);
  hideNotice();
  await loadConfig();
}

// ---- Connection ----

/** Connect. With `withMicrophone` the microphone is turned on, if there is one. */
async function start(withMicrophone) {
  hideNotice();
  if (!settings.isReady && !(await loadConfig())) return;
  byId("start").hidden = true;
  showConnection("connecting", "Connecting…");
  if (withMicrophone) await microphone.turnOn();
  else byId("message").focus();
  session.start(settings.choices, iceServers, earlierSession);
  earlierSession = null;
}

/** Show the progress of the connection; see `Handlers` in live_session.js. */
function showConnection(state, text) {
  isLive = state === "live";
  byId("face").dataset.live = String(isLive);
  byId("progress").hidden = isLive || state === "ended";
  byId("progress-text").textContent = text;
  for (const id of ["mute", "microphone", "interrupt"]) byId(id).disabled = !isLive;
  if (isLive) becomeLive();
  else details.clear();
  if (state === "ended") {
    byId("start").hidden = false;
    byId("start-text").textContent = text;
    byId("message").value ||= pendingText?.text ?? "";
    pendingText = null;
    microphone.turnOff();
  }
  showState(isLive ? serverState : state === "ended" ? "offline" : state);
  showHint();
}

function becomeLive() {
  const isStream = session.media.kind === "WebSocket";
  video.hidden = isStream;
  canvas.hidden = !isStream;
  byId("microphone").disabled = isStream;
  fitFace();
  if (isStream) microphone.turnOff();
  updateAudio();
  if (microphone.track) session.media.setMicrophone(microphone.track);
  if (!isStream) video.play().catch(playMuted);
  else if (session.media.isSuspended) offerAudio(() => session.media.resume());
  if (pendingText) sendText(pendingText);
  pendingText = null;
}

/** The browser refused to play audio without a click. */
function playMuted() {
  video.muted = true;
  video.play().catch(() => {});
  offerAudio(() => (video.muted = false));
}

/** @param {function(): void} turnOn Turns the audio on. */
function offerAudio(turnOn) {
  showNotice("The browser has muted the face.", "Turn the audio on", () => {
    turnOn();
    hideNotice();
  });
}

function handleEvent(event) {
  switch (event.type) {
    case "state":
      setServerState(event.state);
      break;
    case "transcript":
      if (event.text) transcript.add(event); // Without words, it was noise.
      break;
    case "timings":
      details.showTimings(event);
      break;
    case "stats":
      details.setServerStats(event);
      break;
    case "reply_end":
      if (event.interrupted) transcript.markInterrupted(event.turn);
      if (event.num_frames) transcript.offerDownloads(event.turn, download);
      break;
    case "error":
      showNotice(event.message);
      break;
  }
}

function setServerState(state) {
  serverState = state;
  if (isLive) showState(state);
  if (state === "listening") setInterrupted(true);
  if (state === "thinking" || state === "speaking") setInterrupted(false);
}

async function showStats() {
  const { media } = session;
  if (!isLive || !media) return;
  const received = await media.stats();
  if (isLive && media === session.media) details.showStats(media.kind, received);
}

// ---- Text ----

async function sendText({ mode, text }) {
  try {
    await session.send(mode, text);
    // The server sends the transcript of spoken questions only.
    if (mode === "ask") transcript.addQuestion(text);
  } catch (error) {
    showNotice(error.message);
    if (!byId("message").value) byId("message").value = text;
  }
}

function submitText(event) {
  event.preventDefault();
  const field = byId("message");
  const text = field.value.trim();
  if (!text) return;
  const message = { mode: byId("composer").elements.mode.value, text };
  if (isLive) {
    sendText(message);
  } else {
    pendingText = message;
    if (!byId("start").hidden) start(false);
  }
  field.value = "";
  fitMessage();
}

/** Fit the height of the message field to its text. */
function fitMessage() {
  const field = byId("message");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

function showMode() {
  const isAsk = byId("composer").elements.mode.value === "ask";
  byId("message").placeholder = isAsk ? "Ask a question" : "Text for the face to say";
}

async function interrupt() {
  if (!isLive) return;
  setInterrupted(true);
  try {
    await session.interrupt();
  } catch (error) {
    setInterrupted(false);
    showNotice(error.message);
  }
}

/** Save the last answer as a file. */
async function download(what, button) {
  button.disabled = true;
  try {
    await api.download(session.id, what);
  } catch (error) {
    showNotice(error.message);
  }
  button.disabled = false;
}

// ---- Audio ----

function showMicrophoneError(message) {
  showNotice(message);
  byId("message").focus();
}

/** Set the aspect ratio of the face's frame to that of the video. */
function fitFace() {
  const isStream = video.hidden;
  const width = isStream ? canvas.width : video.videoWidth;
  const height = isStream ? canvas.height : video.videoHeight;
  if (width && height) byId("face").style.setProperty("--ratio", width / height);
}

function showHint() {
  byId("hint").textContent = hint();
}

function hint() {
  if (!isLive) return "";
  if (byId("microphone").disabled) return "Without WebRTC there is no microphone: type instead.";
  if (microphone.isOn) return "The microphone is on: just talk.";
  return matchMedia("(hover: none)").matches
    ? "Tap the microphone to turn it on, or hold it to talk."
    : "Click the microphone to turn it on, or hold Space while you talk. Escape interrupts.";
}

function setMuted(value) {
  isMuted = value;
  byId("mute").setAttribute("aria-pressed", String(value));
  updateAudio();
}

function setInterrupted(value) {
  isInterrupted = value;
  updateAudio();
}

function updateAudio() {
  session.media?.setMuted(isMuted || isInterrupted);
}

// ---- Settings, state and messages ----

/** Use new settings: a new face needs a new session, the rest changes in the running one. */
async function applySettings(choices, changes) {
  session.setChoices(choices);
  if (!session.id) return;
  try {
    if ("avatar" in changes) {
      await session.stop();
      session.start(choices, iceServers);
    } else {
      await api.updateSession(session.id, changes);
    }
  } catch (error) {
    showNotice(error.message);
  }
}

function showState(state) {
  byId("state").dataset.state = state;
  byId("state").textContent = STATES[state] ?? state;
  details.setState(STATES[state] ?? state);
}

function showNotice(text, actionLabel = null, action = null) {
  byId("notice").hidden = false;
  byId("notice-text").textContent = text;
  byId("notice-action").hidden = !actionLabel;
  byId("notice-action").textContent = actionLabel ?? "";
  byId("notice-action").onclick = action;
}

function hideNotice() {
  byId("notice").hidden = true;
}

// ---- Controls ----

function connectControls() {
  video.addEventListener("resize", fitFace);
  canvas.addEventListener("resize", fitFace);
  byId("start-talk").addEventListener("click", () => start(true));
  byId("start-type").addEventListener("click", () => start(false));
  byId("settings-open").addEventListener("click", () => settings.open());
  byId("token-dialog").addEventListener("close", useToken);
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  byId("notice-close").addEventListener("click", hideNotice);
  byId("interrupt").addEventListener("click", interrupt);
  byId("mute").addEventListener("click", () => setMuted(!isMuted));
  byId("composer").addEventListener("submit", submitText);
  byId("composer").addEventListener("change", showMode);
  byId("message").addEventListener("input", fitMessage);
  document.addEventListener("keydown", handleKeyDown);
  document.addEventListener("keyup", handleKeyUp);
  window.addEventListener("pagehide", saveForReload);
}

function handleKeyDown(event) {
  if (document.querySelector("dialog[open]")) return;
  const isInMessage = event.target === byId("message");
  if (event.key === "Escape") {
    interrupt();
  } else if (event.key === "Enter" && isInMessage && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("composer").requestSubmit();
  } else if (event.key === " " && isPushToTalk(event.target)) {
    event.preventDefault();
    if (!event.repeat) microphone.press();
  }
}

function handleKeyUp(event) {
  if (event.key === " " && microphone.release()) event.preventDefault();
}

/** Whether the space bar is push-to-talk: no other control has the focus. */
function isPushToTalk(target) {
  const isOnControl = target.closest("input, textarea, select, button, summary, a");
  return isLive && (!isOnControl || target.closest("#microphone") !== null);
}
