/** What `import "webllm"` declares: what webllm.js exports, and what it adds to a page. The rest is made from the JSDoc. */

import type { ChatElement } from "./chat_element.js";
import type * as webllm from "./webllm.js";

export * from "./webllm.js";

declare global {
  interface Window {
    webllm: typeof webllm;
  }
  interface HTMLElementTagNameMap {
    "web-llm-chat": ChatElement;
  }
}
