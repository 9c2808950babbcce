/** SHA-256 of more than fits into memory, which the browser itself has not. */

/** @returns {Promise<{update: (bytes: Uint8Array) => void, digest: () => string}>} the digest in hex */
export async function createHash() {
  const { createSHA256 } = await import("hash-wasm");
  return createSHA256();
}
