/** The conversation as elements. What people and models write is shown as text and never becomes HTML. */

import { $, copyText } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)\n?$/;

/**
 * Add a message at the end.
 * @param {"user" | "assistant"} role
 * @param {string} author  as it is shown
 * @param {{again: () => void, edit: () => void}} actions  of the buttons on the last answer and the last question
 * @returns {GrowingText} where the message's text goes
 */
export function addMessage(role, author, { again, edit }) {
  const message = $("message").content.firstElementChild.cloneNode(true);
  const part = (selector) => message.querySelector(selector);
  message.classList.add(role);
  part(".author").textContent = author;
  const text = part(".text");
  text.dataset.role = role;
  part(".copy").addEventListener("click", ({ currentTarget }) => copyText(currentTarget, text.textContent));
  part(".again").addEventListener("click", again);
  part(".edit").addEventListener("click", edit);
  $("messages").append(message);
  message.scrollIntoView({ block: "end" });
  return new GrowingText(text);
}

/** Remove all messages behind the first `count`. */
export function keepMessages(count) {
  for (const message of [...$("messages").children].slice(count)) message.remove();
}

/**
 * Text that grows at its end. Code between fences (``` or ~~~) is set apart. The fences are hidden, not dropped:
 * the element's `textContent` is exactly what was appended.
 */
export class GrowingText {
  #element;
  #code = null; // the block that lines go into, while one is open
  #fence = ""; // what opened it
  #line = null; // the element of the last line, until it ends

  constructor(element) {
    this.#element = element;
  }

  append(text) {
    for (const piece of text.match(/[^\n]*\n|[^\n]+/g) ?? []) {
      this.#line ??= (this.#code ?? this.#element).appendChild(document.createElement("span"));
      this.#line.textContent += piece;
      const fence = this.#readFence(this.#line.textContent);
      this.#line.hidden = fence !== null;
      this.#line.classList.toggle("blank", this.#line.textContent === "\n");
      if (piece.endsWith("\n")) this.#endLine(fence);
    }
  }

  #endLine(fence) {
    this.#line = null;
    if (!fence) return;
    if (this.#code) this.#code = null;
    else this.#openCode(fence);
  }

  #openCode({ mark, info }) {
    const block = $("code").content.firstElementChild.cloneNode(true);
    const code = block.querySelector("code");
    const language = info.trim().split(/\s/)[0];
    if (language) block.querySelector(".language").dataset.language = language;
    block.querySelector(".copy").addEventListener("click", ({ currentTarget }) => {
      const lines = [...code.children].filter((line) => !line.hidden);
      copyText(currentTarget, lines.map((line) => line.textContent).join(""));
    });
    this.#element.append(block);
    this.#code = code;
    this.#fence = mark;
  }

  /** {mark, info} if the line opens a block here, or closes the open one; else null. */
  #readFence(line) {
    const [, mark, info] = FENCE.exec(line) ?? [];
    if (!mark) return null;
    const opens = mark[0] === "~" || !info.includes("`");
    const closes = mark.startsWith(this.#fence) && !info.trim();
    return (this.#code ? closes : opens) ? { mark, info } : null;
  }
}
