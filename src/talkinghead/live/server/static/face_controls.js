/** The panel of the face: its emotion, and the pose of the head in a photo. */

/** Shortest time between two requests while a slider moves. */
const INTERVAL_MS = 150;
const ANGLES = ["yaw", "pitch", "roll"];

const byId = (id) => document.getElementById(id);

export class FaceControls {
  #onChange;
  #changes = {};
  #timer = null;

  /** @param {function(object): void} onChange Receives any of emotion, intensity and pose. */
  constructor(onChange) {
    this.#onChange = onChange;
    byId("emotion").addEventListener("change", () => this.#setEmotion());
    byId("intensity").addEventListener("input", () => this.#setEmotion());
    for (const name of ANGLES) byId(name).addEventListener("input", () => this.#setPose());
    byId("face-reset").addEventListener("click", () => this.#reset());
  }

  /**
   * @param {string[]} emotions Names of the emotions, the neutral one first.
   * @param {object} choices Choices in use.
   */
  show(emotions, choices) {
    byId("face-controls").hidden = emotions.length === 0;
    byId("emotion").replaceChildren(...emotions.map((name) => new Option(capitalised(name), name)));
    byId("emotion").value = choices.emotion ?? emotions[0] ?? "";
    byId("intensity").value = choices.intensity ?? 1;
    ANGLES.forEach((name, index) => (byId(name).value = choices.pose?.[index] ?? 0));
    this.#showValues();
  }

  /** @param {boolean} isPhoto The face is a photo; the head in a video keeps its own pose. */
  setPhoto(isPhoto) {
    for (const name of ANGLES) byId(name).disabled = !isPhoto;
    byId("face-note").hidden = isPhoto;
  }

  #setEmotion() {
    this.#change({ emotion: byId("emotion").value, intensity: Number(byId("intensity").value) });
  }

  #setPose() {
    this.#change({ pose: ANGLES.map((name) => Number(byId(name).value)) });
  }

  #reset() {
    byId("emotion").selectedIndex = 0;
    byId("intensity").value = 1;
    for (const name of ANGLES) byId(name).value = 0;
    this.#setEmotion();
    this.#setPose();
  }

  /** Report the latest changes, at most once per interval. */
  #change(changes) {
    this.#showValues();
    Object.assign(this.#changes, changes);
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const latest = this.#changes;
      this.#changes = {};
      this.#onChange(latest);
    }, INTERVAL_MS);
  }

  #showValues() {
    byId("intensity").disabled = byId("emotion").selectedIndex <= 0;
    byId("intensity-value").textContent = `${Math.round(100 * Number(byId("intensity").value))} %`;
    for (const name of ANGLES) byId(`${name}-value`).textContent = `${byId(name).value}°`;
  }
}

function capitalised(name) {
  return name.charAt(0).toUpperCase() + name.slice(1);
}
