/** What stands in the shadow root of <web-llm-chat>. The parts of the page find the elements by their ids. */

import { icon, make } from "./dom.js";

/** @returns {HTMLElement} hidden, until its style sheet is there */
export function chatFrame() {
  const button = (attributes, ...children) => make("button", { type: "button", ...attributes }, ...children);
  const conversation = make(
    "div",
    { id: "conversation", class: "conversation", part: "conversation", tabindex: 0, role: "group", "aria-label": "Conversation" },
    make("p", { id: "notice", role: "status", hidden: true }),
    make("div", { id: "welcome" }, make("slot")),
    // Each answer is announced once, when it is whole; word by word nobody could listen.
    make("div", { id: "messages", role: "log", "aria-live": "off", "aria-label": "Messages" }),
  );
  const loading = make(
    "div",
    { id: "loading", role: "group", "aria-label": "Loading the model", hidden: true },
    make("p", { id: "loading-text" }),
    make("progress", { id: "loading-bar", "aria-labelledby": "loading-text" }),
    button({ id: "cancel", class: "quiet" }, "Cancel"),
  );
  const alert = make(
    "div",
    { id: "alert", part: "alert", hidden: true },
    make("p", { id: "alert-text", role: "alert" }),
    button({ id: "way-out", class: "quiet", hidden: true }),
  );
  const composer = make(
    "form",
    { id: "composer", part: "composer" },
    make("textarea", { id: "prompt", part: "input", rows: 1, "aria-label": "Your message", autocomplete: "off", enterkeyhint: "send" }),
    make("button", { type: "submit", id: "send", class: "round", part: "send", "aria-label": "Send", disabled: true }, icon("send")),
    button({ id: "stop", class: "round", part: "stop", "aria-label": "Stop", hidden: true }, icon("stop")),
  );
  const small = make(
    "p",
    { class: "small" },
    make("span", { id: "stats" }),
    make("span", { class: "hint" }, "Enter sends, Shift+Enter starts a new line"),
    button({ id: "new-chat", class: "quiet", part: "new-chat", disabled: true }, icon("new"), "New chat"),
  );
  const foot = make("div", { class: "foot" }, loading, alert, composer, small);
  const announcer = make("p", { id: "announcer", class: "unseen", role: "status" });
  return make("section", { id: "chat", class: "chat", hidden: true }, conversation, foot, announcer);
}
