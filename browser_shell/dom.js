/** What every part of a page does with its elements. A root is the document, or the shadow root of an element of ours. */

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/**
 * An element with attributes and children; `true` is an empty attribute, and what is false or null is left out.
 *
 *     make("button", { type: "button", disabled: true }, "Send")
 *
 * @param {string} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/** @param {string} name  of a symbol in icons.svg  @param {string} [className] */
export function icon(name, className = "") {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${new URL("icons.svg", import.meta.url)}#${name}`);
  if (className) use.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A quiet button that copies what `text` gives. */
export function copyButton(text, attributes = {}, ...children) {
  const icons = icon("copy", "before");
  icons.append(...icon("check", "after").children);
  const button = make("button", { type: "button", class: "quiet copy", ...attributes }, icons, ...children);
  button.addEventListener("click", () => copyText(button, text()));
  return button;
}

/** Show an element with this text; an empty text hides it. */
export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/**
 * Tell who listens instead of looking; the same text twice is told twice.
 * @param {string} text  @param {Document | ShadowRoot} [root]
 */
export function announce(text, root = document) {
  const announcer = root.getElementById("announcer");
  announcer.textContent = "";
  requestAnimationFrame(() => (announcer.textContent = text));
}

/** Put text on the clipboard, and say so on the button for a moment. */
export async function copyText(button, text) {
  const root = button.getRootNode();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return announce("The browser did not allow copying", root);
  }
  announce("Copied", root);
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1500);
}

/**
 * Change what may hide or disable what has the focus; then `elsewhere` gives it to something else.
 * @param {any} root  the document or a shadow root
 */
export function keepFocus(root, change, elsewhere) {
  const focused = root.activeElement;
  change();
  if (focused?.disabled || focused?.checkVisibility() === false) elsewhere();
}
