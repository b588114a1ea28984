/** The transcript: what the user and the face have said. All text is set as plain text. */

export class Transcript {
  #list;
  #empty;
  /** @type {Map<string, HTMLElement>} Text of a turn, by role and turn. */
  #texts = new Map();
  #downloads = null;

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} empty Hint that is shown while the list is empty.
   */
  constructor(list, empty) {
    this.#list = list;
    this.#empty = empty;
  }

  /**
   * Show what was said. The user's text replaces the earlier version of the same turn; the face's
   * sentences follow one another.
   *
   * @param {{role: "user"|"assistant", text: string, is_final: boolean, turn: number}} event
   */
  add({ role, text, is_final: isFinal, turn }) {
    const key = `${role}-${turn}`;
    let element = this.#texts.get(key);
    if (!element) {
      this.#dropInterim();
      element = this.#addMessage(role);
      this.#texts.set(key, element);
    }
    const isContinued = role === "assistant" && element.textContent !== "";
    element.textContent = isContinued ? `${element.textContent} ${text}` : text;
    element.parentElement.classList.toggle("interim", !isFinal);
    this.#scroll();
  }

  /** Show a typed question. */
  addQuestion(text) {
    this.#addMessage("user").textContent = text;
    this.#scroll();
  }

  /** Mark the answer of a turn as interrupted. */
  markInterrupted(turn) {
    this.#texts.get(`assistant-${turn}`)?.parentElement.classList.add("interrupted");
  }

  /**
   * Offer the last answer as files, below its text.
   *
   * @param {number} turn
   * @param {function("recording"|"subtitles", HTMLButtonElement): void} onDownload
   */
  offerDownloads(turn, onDownload) {
    const element = this.#texts.get(`assistant-${turn}`);
    if (!element) return;
    this.#downloads?.remove();
    this.#downloads = document.createElement("div");
    this.#downloads.className = "downloads";
    const files = [
      ["recording", "Save video"],
      ["subtitles", "Save subtitles"],
    ];
    for (const [what, label] of files) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "link";
      button.textContent = label;
      button.addEventListener("click", () => onDownload(what, button));
      this.#downloads.append(button);
    }
    element.parentElement.append(this.#downloads);
    this.#scroll();
  }

  /** Start a new session, whose turn numbers start again. */
  startSession() {
    this.#texts.clear();
    this.#downloads?.remove();
    if (this.#list.childElementCount) this.#addItem("separator").textContent = "New session";
  }

  /** @returns {object[]} The messages, for `restore`. */
  save() {
    const messages = this.#list.querySelectorAll(".message:not(.interim)");
    return Array.from(messages, ({ dataset, firstElementChild }) => {
      return { role: dataset.role, text: firstElementChild.textContent };
    });
  }

  /** Show messages from before a reload of the page. */
  restore(messages) {
    for (const { role, text } of messages) this.#addMessage(role).textContent = text;
    this.#scroll();
  }

  /** Remove a text that was never confirmed, such as noise. */
  #dropInterim() {
    for (const [key, { parentElement }] of this.#texts) {
      if (!parentElement.classList.contains("interim")) continue;
      parentElement.remove();
      this.#texts.delete(key);
    }
  }

  #addMessage(role) {
    const item = this.#addItem("message");
    item.dataset.role = role === "user" ? "user" : "assistant";
    const text = document.createElement("p");
    item.append(text);
    return text;
  }

  #addItem(className) {
    const item = document.createElement("li");
    item.className = className;
    this.#list.append(item);
    this.#empty.hidden = true;
    return item;
  }

  #scroll() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}
