/** The settings: face (from the library or uploaded), voice, language model and persona. */

import { FaceControls } from "./face_controls.js";

const OWN_PERSONA = "Own text";

const byId = (id) => document.getElementById(id);

export class Settings {
  /** Current choices in the server's format; a missing key selects the server's default. */
  choices = {};
  #api;
  #config = null;
  #onApply;
  #face = new FaceControls((changes) => {
    Object.assign(this.choices, changes);
    this.#onApply(this.choices, changes);
  });

  /**
   * @param {import("./api.js").Api} api
   * @param {function(object, object): void} onApply Receives all choices, and the changed choices.
   */
  constructor(api, onApply) {
    this.#api = api;
    this.#onApply = onApply;
    byId("settings").addEventListener("close", () => {
      if (byId("settings").returnValue === "apply") this.#apply();
    });
    byId("persona-preset").addEventListener("change", () => this.#showPreset());
    byId("persona").addEventListener("input", () => (byId("persona-preset").value = OWN_PERSONA));
    byId("upload-file").addEventListener("change", () => this.#checkUpload());
    byId("upload-consent").addEventListener("change", () => this.#checkUpload());
    byId("upload").addEventListener("click", () => this.#upload());
  }

  /** @param {object} config Answer of `GET v1/config`. */
  setConfig(config) {
    this.#config = config;
    const personas = Object.keys(config.personas);
    this.choices.avatar ??= config.avatars[0]?.id;
    this.choices.voice ??= config.voices[0];
    this.choices.llm ??= config.llms[0];
    this.choices.persona ??= config.personas[personas[0]];
    fillSelect(byId("voice"), config.voices);
    fillSelect(byId("llm"), config.llms);
    fillSelect(byId("persona-preset"), [...personas, OWN_PERSONA]);
    this.#face.show(config.emotions, this.choices);
    this.#showKind();
  }

  get isReady() {
    return this.#config !== null;
  }

  /** Open the dialog with the choices in use. */
  open() {
    const dialog = byId("settings");
    byId("settings-error").hidden = true;
    byId("upload-status").textContent = "";
    this.#showAvatars(this.choices.avatar);
    byId("voice").value = this.choices.voice ?? "";
    byId("llm").value = this.choices.llm ?? "";
    byId("persona").value = this.choices.persona ?? "";
    const presets = Object.entries(this.#config.personas);
    const preset = presets.find(([, text]) => text === this.choices.persona);
    byId("persona-preset").value = preset ? preset[0] : OWN_PERSONA;
    dialog.returnValue = "";
    dialog.showModal();
  }

  #apply() {
    const next = {
      avatar: byId("settings-form").elements.avatar?.value || this.choices.avatar,
      voice: byId("voice").value || undefined,
      llm: byId("llm").value || undefined,
      persona: byId("persona").value.trim(),
    };
    const changed = Object.entries(next).filter(([name, value]) => value !== this.choices[name]);
    const changes = Object.fromEntries(changed);
    this.choices = { ...this.choices, ...next };
    this.#showKind();
    if (Object.keys(changes).length) this.#onApply(this.choices, changes);
  }

  #showKind() {
    const avatar = this.#config.avatars.find(({ id }) => id === this.choices.avatar);
    this.#face.setPhoto(avatar?.kind !== "video");
  }

  #showPreset() {
    const text = this.#config.personas[byId("persona-preset").value];
    if (text !== undefined) byId("persona").value = text;
    else byId("persona").focus();
  }

  #showAvatars(selected) {
    const items = this.#config.avatars.map((avatar) => avatarChoice(avatar, selected));
    byId("avatars").replaceChildren(...items);
  }

  /** Check the photo or video and the consent before the upload. */
  #checkUpload() {
    const [file] = byId("upload-file").files;
    const limit = this.#config.max_upload_bytes;
    const isTooLarge = file && file.size > limit;
    byId("upload").disabled = !file || isTooLarge || !byId("upload-consent").checked;
    showUploadStatus(
      isTooLarge
        ? `This file has ${megabytes(file.size)}. The server takes at most ${megabytes(limit)}.`
        : "",
      isTooLarge,
    );
  }

  async #upload() {
    const [file] = byId("upload-file").files;
    byId("upload").disabled = true;
    showUploadStatus("Uploading and looking for a face…");
    try {
      const { id } = await this.#api.uploadAvatar(file);
      const kind = file.type.startsWith("video/") ? "video" : "photo";
      this.#config.avatars.push({ id, name: file.name, kind });
      this.#showAvatars(id);
      byId("upload-file").value = "";
      byId("upload-consent").checked = false;
      showUploadStatus("Added. Apply to use it.");
    } catch (error) {
      showUploadStatus(error.message, true);
      byId("upload").disabled = false;
    }
  }
}

function avatarChoice({ id, name, kind }, selected) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const text = document.createElement("span");
  const note = document.createElement("small");
  Object.assign(input, { type: "radio", name: "avatar", value: id, checked: id === selected });
  text.textContent = name;
  note.textContent = { photo: "Photo", video: "Video" }[kind] ?? "";
  label.append(input, text, note);
  return label;
}

function fillSelect(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.disabled = names.length < 2;
}

function showUploadStatus(text, isError = false) {
  byId("upload-status").textContent = text;
  byId("upload-status").classList.toggle("error", isError);
}

function megabytes(bytes) {
  return `${Math.round(bytes / 1e6).toLocaleString("en")} MB`;
}
