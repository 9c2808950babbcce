/** What every part of the page does with its elements. */

export const $ = (id) => document.getElementById(id);

/** Show an element with this text; an empty text hides it. */
export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** Tell who listens instead of looking; the same text twice is told twice. */
export function announce(text) {
  $("announcer").textContent = "";
  requestAnimationFrame(() => ($("announcer").textContent = text));
}

/** Put text on the clipboard, and say so on the button for a moment. */
export async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return announce("The browser did not allow copying");
  }
  announce("Copied");
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1500);
}
