/** The worker of Web LLM's README, after the same change. */

import { WebWorkerMLCEngineHandler } from "./webllm-compat.js"; // it was "@mlc-ai/web-llm"

const handler = new WebWorkerMLCEngineHandler();
self.onmessage = (message) => {
  handler.onmessage(message);
};
