/** How long the page's own thread was busy at a stretch. */

const EVERY_MS = 10;

/**
 * Do `work` and watch the page's thread: by the browser's long tasks (over 50 ms), where it tells them, and by how late
 * a timer comes.
 *
 *     const [answer, longest_task_ms] = await longestTask(() => ask());
 *
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<[T, number]>}  its result, and milliseconds
 */
export async function longestTask(work) {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last - EVERY_MS);
    last = now;
  }, EVERY_MS);
  const note = (entries) => entries.forEach(({ duration }) => (longest = Math.max(longest, duration)));
  const observer = new PerformanceObserver((list) => note(list.getEntries()));
  observer.observe({ type: "longtask" }); // where there are none, this does nothing
  try {
    const result = await work();
    note(observer.takeRecords());
    return [result, longest];
  } finally {
    clearInterval(timer);
    observer.disconnect();
  }
}
