/** What went wrong, and a way out of it. */

import { make, show } from "./dom.js";

/** Error name -> title */
const TITLES = {
  NoAdapter: "This page needs WebGPU",
  OutOfMemory: "The GPU has too little memory",
  ModelNotFound: "The model was not found",
  FetchError: "Something could not be fetched",
  StorageFull: "There is no room for the model",
  ChecksumMismatch: "The model came damaged",
  DeviceLost: "The GPU went away",
  ContextFull: "The conversation is too long",
};

export class Alert {
  #box;
  #text;
  #button;

  /** @param {Document | ShadowRoot} root  with #alert, #alert-text and #way-out */
  constructor(root) {
    this.#box = root.getElementById("alert");
    this.#text = root.getElementById("alert-text");
    this.#button = root.getElementById("way-out");
  }

  /**
   * Tell of something that is not wrong.
   * @param {string} text
   * @param {[string, () => void]} [wayOut]  a button and what it does
   */
  tell(text, wayOut) {
    this.#show("", text, wayOut);
  }

  /** @param {Error} error  @param {[string, () => void]} [wayOut] */
  showError(error, wayOut) {
    this.#show(TITLES[error.name] ?? "That did not work", error.message, wayOut);
  }

  hide() {
    this.#box.hidden = true;
    this.#text.replaceChildren();
  }

  #show(title, text, wayOut) {
    const [label, act] = wayOut ?? [];
    const strong = make("strong");
    show(strong, title);
    this.#box.classList.toggle("calm", !title);
    this.#box.hidden = false;
    this.#text.replaceChildren(strong, text);
    show(this.#button, label ?? "");
    this.#button.onclick = act ?? null;
  }
}
