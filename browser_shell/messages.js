/** The conversation as elements. What people and models write is shown as text and never becomes HTML. */

import { copyButton, icon, make } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)\n?$/;
const NEAR_END = 80; // pixels from the end of the conversation that still count as reading along

/**
 * Add a message at the end.
 * @param {Element} list  of messages
 * @param {"user" | "assistant"} role
 * @param {string} author  as it is shown
 * @param {{again?: () => void, edit?: () => void}} [actions]  of the buttons on the last answer and the last question
 * @returns {GrowingText} where the message's text goes
 */
export function addMessage(list, role, author, { again, edit } = {}) {
  const text = make("div", { class: "text", part: "text", "data-role": role });
  const actions = make("p", { class: "actions" }, copyButton(() => text.textContent, {}, " Copy"));
  if (again) actions.append(action("again", "Regenerate", again));
  if (edit) actions.append(action("edit", "Edit", edit));
  const name = make("h2", { class: "author", part: "author" }, author);
  list.append(make("article", { class: `message ${role}`, part: `message ${role}` }, name, text, actions));
  return new GrowingText(text);
}

function action(name, label, act) {
  const button = make("button", { type: "button", class: `quiet ${name}` }, icon(name), ` ${label}`);
  button.addEventListener("click", act);
  return button;
}

/** Remove all messages behind the first `count`. */
export function keepMessages(list, count) {
  for (const message of [...list.children].slice(count)) message.remove();
}

/** Change a conversation and stay at its end, unless the reader has scrolled up. */
export function follow(scroller, change) {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
  change();
  if (atEnd) scrollToEnd(scroller);
}

export function scrollToEnd(scroller) {
  scroller.scrollTop = scroller.scrollHeight;
}

/**
 * How long an answer is and how fast it came.
 * @param {import("./model.js").Usage} usage  @param {import("./model.js").FinishReason | null} [reason]
 */
export function describeUsage({ completion_tokens: tokens, extra }, reason) {
  const { decode_tokens_per_s: speed, time_to_first_token_s: first } = extra;
  const rate = tokens > 1 ? `${speed.toFixed(1)} tokens/s · ` : "";
  const count = tokens === 1 ? "1 token" : `${tokens} tokens`;
  const cut = reason === "length" ? " · cut off at the limit" : "";
  return `${count} · ${rate}first after ${first.toFixed(1)} s${cut}`;
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

  /** No text but the code's own: the whole is part of an answer's text. */
  #openCode({ mark, info }) {
    const code = make("code");
    const shown = () => [...code.querySelectorAll("span")].filter((line) => !line.hidden).map((line) => line.textContent);
    const language = make("span", { class: "language", "data-language": info.trim().split(/\s/)[0] || null });
    const copy = copyButton(() => shown().join(""), { "aria-label": "Copy code" });
    const pre = make("pre", { tabindex: 0, role: "group", "aria-label": "Code" }, code);
    this.#element.append(make("div", { class: "code", part: "code" }, language, copy, pre));
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
