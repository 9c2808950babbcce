/**
 * What Python finds as `js.webllmHost`: the GPU, files and the tokenizer library. worker.js sets it in a page; a notebook
 * takes this file, bundled, out of the wheel (webllm/host/javascript.py).
 */

import { Tokenizer } from "@huggingface/tokenizers";

import { openDevice } from "./bridge.js";
import * as cache from "./cache.js";
import { openSource } from "./sources.js";

export const host = {
  openDevice: (adapter, powerPreference) => openDevice({ adapter, powerPreference }),

  openSource,

  cache,

  /** A function from text to ids, without special tokens. */
  createEncoder(tokenizerJson) {
    const tokenizer = new Tokenizer(JSON.parse(tokenizerJson), {});
    return (text) => Int32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids);
  },
};
