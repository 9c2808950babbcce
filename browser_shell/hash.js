/** SHA-256 of more than fits into memory, which browsers do not have. */

import { createSHA256 } from "hash-wasm";

/** @returns {Promise<{update: (bytes: Uint8Array) => void, digest: () => string}>} the digest in hex */
export const createHash = () => createSHA256();
