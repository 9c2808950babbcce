/** Before a page's own scripts: `webllm.load` becomes fake_webllm.js's, which is to be served as /fake.js. */
let webllm;
Object.defineProperty(window, "webllm", {
  get: () => webllm,
  set: (value) => (webllm = { ...value, load: async (...args) => (await import("/fake.js")).load(...args) }),
});
