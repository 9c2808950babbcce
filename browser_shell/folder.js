/**
 * Where a browser keeps files for an origin: its private file system (OPFS), or its Cache where there is none. Two
 * levels, folders and files, which are written whole and read as Blobs; a file whose writing was broken off is as it
 * was, or empty. Nothing here knows what the files mean.
 *
 * @typedef {object} Folders
 * @property {() => Promise<string[]>} list  names of folders
 * @property {(folder: string) => Promise<{name: string, size: number}[]>} files
 * @property {(folder: string, name: string) => Promise<Blob | null>} read
 * @property {(folder: string, name: string, data: Blob | BufferSource) => Promise<void>} write
 * @property {(folder: string, name?: string) => Promise<void>} remove  a file, or the whole folder
 * @property {(wanted: number) => Promise<number>} room  for so many more bytes, up to those that are wanted
 */

const ROOT = "webllm";
const TRIALS = 12; // to find out how much room there is: to a thousandth of what is wanted

/** @returns {Promise<Folders | null>} null where this browser keeps nothing, as in some private windows */
export async function openFolders() {
  const writable = globalThis.FileSystemFileHandle?.prototype.createWritable;
  const root = writable && (await navigator.storage.getDirectory().catch(() => null));
  if (root) return new FileFolders(await root.getDirectoryHandle(ROOT, { create: true }));
  const cache = await globalThis.caches?.open(ROOT).catch(() => null);
  return cache ? new CacheFolders(cache) : null;
}

const missing = (error) => {
  if (error.name === "NotFoundError") return null;
  throw error;
};

class FileFolders {
  #root;

  constructor(root) {
    this.#root = root;
  }

  async list() {
    const names = [];
    for await (const [name, { kind }] of this.#root.entries()) if (kind === "directory") names.push(name);
    return names;
  }

  async files(folder) {
    const directory = await this.#directory(folder);
    const handles = [];
    for await (const handle of directory?.values() ?? []) if (handle.kind === "file") handles.push(handle);
    const files = await Promise.all(handles.map((handle) => handle.getFile().catch(missing))); // one may go meanwhile
    return files.filter(Boolean).map(({ name, size }) => ({ name, size }));
  }

  async read(folder, name) {
    const directory = await this.#directory(folder);
    const handle = await directory?.getFileHandle(name).catch(missing);
    return (await handle?.getFile().catch(missing)) ?? null;
  }

  async write(folder, name, data) {
    const directory = await this.#root.getDirectoryHandle(folder, { create: true });
    const stream = await (await directory.getFileHandle(name, { create: true })).createWritable();
    await stream.write(data);
    await stream.close();
  }

  async remove(folder, name) {
    const directory = name === undefined ? this.#root : await this.#directory(folder);
    await directory?.removeEntry(name ?? folder, { recursive: name === undefined }).catch(missing);
  }

  /** By trial: what Chromium's `estimate` says is the same on every machine, so that pages cannot tell one by it. */
  async room(wanted) {
    const name = `trial-${crypto.randomUUID()}`;
    const handle = await this.#root.getFileHandle(name, { create: true });
    try {
      if (await fits(handle, wanted)) return wanted;
      let [least, most] = [0, wanted];
      for (let trial = 0; trial < TRIALS; trial++) {
        const middle = Math.floor((least + most) / 2);
        if (await fits(handle, middle)) least = middle;
        else most = middle;
      }
      return least;
    } finally {
      await this.#root.removeEntry(name);
    }
  }

  #directory(folder) {
    return this.#root.getDirectoryHandle(folder).catch(missing);
  }
}

/** Whether a file may grow to so many bytes; nothing is written. */
async function fits(handle, bytes) {
  const stream = await handle.createWritable();
  try {
    await stream.truncate(bytes);
    return true;
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error;
    return false;
  } finally {
    await stream.abort().catch(() => {}); // it may have failed already
  }
}

/** Files as answers to addresses that nobody asks for. */
class CacheFolders {
  #cache;

  constructor(cache) {
    this.#cache = cache;
  }

  async list() {
    return [...new Set((await this.#paths()).map(([folder]) => folder))];
  }

  async files(folder) {
    const names = (await this.#paths()).filter(([of]) => of === folder).map(([, name]) => name);
    return Promise.all(names.map(async (name) => ({ name, size: (await this.read(folder, name))?.size ?? 0 })));
  }

  async read(folder, name) {
    return (await (await this.#cache.match(place(folder, name)))?.blob()) ?? null;
  }

  write(folder, name, data) {
    return this.#cache.put(place(folder, name), new Response(data));
  }

  async remove(folder, name) {
    const all = name === undefined ? (await this.files(folder)).map((file) => file.name) : [name];
    await Promise.all(all.map((each) => this.#cache.delete(place(folder, each))));
  }

  async room(wanted) {
    const { usage = 0, quota = wanted } = await navigator.storage.estimate();
    return Math.max(0, Math.min(wanted, quota - usage));
  }

  async #paths() {
    return (await this.#cache.keys()).map(({ url }) => new URL(url).pathname.split("/").slice(-2).map(decodeURIComponent));
  }
}

const place = (folder, name) => `/${ROOT}/${encodeURIComponent(folder)}/${encodeURIComponent(name)}`;
