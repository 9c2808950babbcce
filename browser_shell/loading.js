/** How far a load is, in words and as a bar. */

const MB = 1e6;

export class Loading {
  #text;
  #bar;
  #downloading = false;

  /** @param {Document | ShadowRoot} root  with #loading-text and #loading-bar */
  constructor(root) {
    this.#text = root.getElementById("loading-text");
    this.#bar = root.getElementById("loading-bar");
  }

  start() {
    this.#downloading = false;
    this.#text.textContent = "Starting Python and fetching the model";
    this.#bar.removeAttribute("value");
  }

  /**
   * The download, as long as there is one; then what goes from the browser's store to the GPU.
   * @param {import("./model.js").Progress} progress
   */
  show({ phase, loaded, total, stored = 0, seconds }) {
    if (phase === "download") this.#downloading = loaded < total;
    if (phase === "weights" ? this.#downloading : phase !== "download") return;
    const speed = (loaded - stored) / seconds;
    const left = speed > 0 ? Math.ceil((total - loaded) / speed) : 0;
    const rate = `${(speed / MB).toFixed(0)} MB/s`;
    const done = loaded < total ? `${rate}, ${left} s left` : "preparing the GPU";
    this.#text.textContent = `${(loaded / MB).toFixed(0)} of ${(total / MB).toFixed(0)} MB · ${done}`;
    this.#bar.max = total;
    this.#bar.value = loaded;
  }
}
