/** The box that questions are written in, with its two buttons. */

export class Composer {
  #box;
  #send;
  #stop;

  /**
   * @param {Document | ShadowRoot} root  with #composer, #prompt, #send and #stop
   * @param {{send: () => void, stop: () => void}} actions  send: there is a text, and it may be sent now
   */
  constructor(root, { send, stop }) {
    this.#box = root.getElementById("prompt");
    this.#send = root.getElementById("send");
    this.#stop = root.getElementById("stop");
    const trySend = (event) => {
      event.preventDefault();
      if (this.text.trim() && !this.#send.disabled && !this.#send.hidden) send();
    };
    root.getElementById("composer").addEventListener("submit", trySend);
    this.#box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) trySend(event);
    });
    this.#box.addEventListener("input", () => this.#grow());
    this.#stop.addEventListener("click", stop);
  }

  get text() {
    return this.#box.value;
  }

  set text(text) {
    this.#box.value = text;
    this.#grow();
  }

  /** Whether a question can be sent now. */
  get ready() {
    return !this.#send.disabled;
  }

  /** @param {{ready: boolean, generating: boolean}} state  ready: a question can be sent; generating: Stop stands for Send */
  setState({ ready, generating }) {
    this.#send.hidden = generating;
    this.#stop.hidden = !generating;
    this.#send.disabled = !ready;
  }

  focus() {
    this.#box.focus({ preventScroll: true });
  }

  focusStop() {
    this.#stop.focus();
  }

  /** The box is as high as its text, up to what the style sheet allows. */
  #grow() {
    const box = this.#box;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
  }
}
