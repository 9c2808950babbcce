/**
 * The GPU side of webllm in the browser: buffers, pipelines, bind groups and the device's verbs. It
 * runs linked programs (see webllm/link.py) and knows nothing of models. Python makes one call a step.
 * Errors carry the name of Python's class, and kernel, line and sizes where they are known.
 *
 * @typedef {import("./sources.js").Source} Source
 * @typedef {number | [("rows" | "length"), number] | ["split", number, number, number, number, number]} Size  a number,
 *   ceil(value / divisor), or the parts into which a product is cut (webllm.plan.Split)
 * @typedef {{pipeline: number, buffers: [number, number][], grid: [Size, Size, Size]}} LinkedDispatch
 * @typedef {{source: number, offset: number, rows: number, rowBytes: number, rowsPerPiece: number,
 *   params: number[], dispatch: LinkedDispatch}} LinkedUpload
 * @typedef {{
 *   buffers: {name: string, size: number, kind: string}[],
 *   modules: string[],
 *   pipelines: {label: string, module: number, constants: Record<string, number>,
 *     bindings: [number, "read" | "read_write"][]}[],
 *   plans: Record<string, {dispatches: LinkedDispatch[], result: number | null}>,
 *   uploads: LinkedUpload[],
 * }} Linked
 * @typedef {{phase: string, loaded: number, total: number, tensors: number, seconds: number}} Progress
 */

const FEATURES = ["shader-f16", "subgroups", "timestamp-query"];
const MATRICES = "chromium-experimental-subgroup-matrix";
const LANGUAGE_FEATURES = ["packed_4x8_integer_dot_product"]; // of WGSL, and of no device
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxStorageBuffersPerShaderStage",
];
const PREFERENCES = ["high-performance", "low-power"];
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render/i;
const RETRY_MS = 700; // the first request can come before the GPU process knows its GPU
const IN_FLIGHT = 16 << 20; // uploaded bytes that the GPU has not taken yet
const IMPORTS_IN_FLIGHT = 64;
const UNFREED = 64 << 20; // bytes that growing may leave to be freed later
const PROGRESS_MS = 100;
const SUBMITS = 5; // a step is cut into so many: the GPU starts on the first while the rest is encoded

const failure = (name, message, details = {}) => Object.assign(new Error(message), { name, ...details });
const unloaded = (id) => failure("Closed", `no program ${id} on the GPU: it was unloaded`);
const roundUp = (size) => Math.ceil(size / 4) * 4;

/**
 * Open the GPU.
 * @param {{adapter?: string, powerPreference?: GPUPowerPreference}} [options]  adapter: part of the name it must have
 * @returns {Promise<Bridge>}
 * @throws NoAdapter, RequestError
 */
export async function openDevice({ adapter: wanted = "", powerPreference = PREFERENCES[0] } = {}) {
  if (!PREFERENCES.includes(powerPreference)) {
    throw failure("RequestError", `powerPreference must be one of ${PREFERENCES.join(", ")}, got ${powerPreference}`);
  }
  const adapter = await findAdapter(powerPreference);
  const info = describe(adapter);
  if (!info.name.toLowerCase().includes(wanted.toLowerCase())) {
    const way = "a browser does not let a page choose; use the browser's own settings";
    throw failure("NoAdapter", `wanted an adapter with "${wanted}" in its name, got "${info.name}": ${way}`);
  }
  const features = multipliesMatrices(adapter.info) ? [...FEATURES, MATRICES] : FEATURES;
  const requiredFeatures = features.filter((name) => adapter.features.has(name));
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  const device = await adapter.requestDevice({ requiredFeatures, requiredLimits }).catch((error) => {
    throw failure("NoAdapter", `${info.name} gives no device: ${error.message}; restart the browser`);
  });
  return new Bridge(device, info);
}

/** Tries again where nothing, or only a software adapter, came at first. */
async function findAdapter(powerPreference) {
  if (!navigator.gpu) {
    const secure = isSecureContext ? "" : " (this page is not served over https or from localhost)";
    throw failure("NoAdapter", `this browser has no WebGPU${secure}: use a current Chrome, Edge, Safari or Firefox`);
  }
  const first = await navigator.gpu.requestAdapter({ powerPreference });
  if (first && !isSoftware(first)) return first;
  await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  const adapter = (await navigator.gpu.requestAdapter({ powerPreference })) ?? first;
  if (adapter) return adapter;
  const reason = "the GPU or its driver may be blocked; see chrome://gpu";
  throw failure("NoAdapter", `WebGPU is there but gives no adapter: ${reason}`);
}

function describe(adapter) {
  const { vendor, architecture, device, description, backend } = adapter.info;
  const name = description || device || [vendor, architecture].filter(Boolean).join(" ") || "unknown adapter";
  const api = vendor === "apple" ? "Metal" : "WebGPU"; // a page is not told more
  return { name, backend: backend || api, software: isSoftware(adapter), driver: "" };
}

/** Whether the GPU has matrices of the size that matmul_matrix.wgsl takes, in subgroups of 32. */
function multipliesMatrices({ subgroupMatrixConfigs, subgroupMinSize, subgroupMaxSize }) {
  const fits = ({ componentType, resultComponentType, M, N, K }) =>
    componentType === "f16" && resultComponentType === "f32" && M === 16 && N === 16 && K === 16;
  return subgroupMinSize === 32 && subgroupMaxSize === 32 && [...(subgroupMatrixConfigs ?? [])].some(fits);
}

function isSoftware(adapter) {
  const { isFallbackAdapter, vendor, architecture, device, description } = adapter.info;
  return isFallbackAdapter || SOFTWARE.test([vendor, architecture, device, description].join(" "));
}

/** One GPU device, and the programs loaded on it. */
export class Bridge {
  #device;
  #programs = new Map();
  #nextId = 1;
  #fault = null; // what WebGPU reported outside of any call
  #reading = 0; // results that are on their way

  constructor(device, info) {
    this.#device = device;
    this.info = info;
    const language = LANGUAGE_FEATURES.filter((name) => navigator.gpu.wgslLanguageFeatures?.has(name));
    this.features = [...device.features, ...language];
    this.limits = plainLimits(device.limits);
    this.bytes = 0; // live on the GPU, buffers for readback included
    this.lost = device.lost.then(({ reason, message }) => message || reason);
    this.lost.then((reason) => {
      const way = "await llm.reload() opens it again and loads the model anew";
      this.#fault = failure("DeviceLost", `the GPU went away (${reason.trim()}); ${way}`);
    });
    device.addEventListener("uncapturederror", ({ error }) => (this.#fault ??= asFailure(error)));
  }

  /**
   * Allocate, compile and upload. On a failure nothing stays allocated.
   * @param {string} linkedJson  a `Linked` as JSON
   * @param {Source[]} sources
   * @param {((progress: Progress) => void) | null} onProgress  at most ten times a second
   * @returns {Promise<number>} the program's id
   * @throws OutOfMemory, ShaderError, DeviceLost, or what a source throws
   */
  async load(linkedJson, sources, onProgress = null) {
    /** @type {Linked} */
    const linked = JSON.parse(linkedJson);
    const program = { buffers: [], plans: {}, seconds: {}, staging: new Map(), growth: Promise.resolve(), live: true };
    const timed = stopwatch(program.seconds);
    try {
      program.buffers = await timed("buffers", this.#allocate(linked.buffers));
      const pipelines = compile(this.#device, linked);
      const meter = new Meter(linked.uploads, onProgress);
      await timed("weights", this.#upload(linked, program, pipelines, sources, meter));
      const ready = await timed("pipelines", Promise.all(pipelines)); // what is left of it: they began before
      await timed("bindings", this.#link(linked, program, ready));
      this.#check();
    } catch (error) {
      this.#free(program.buffers);
      throw error;
    }
    linked.buffers.forEach(({ kind }, i) => kind === "staging" && this.#free(program.buffers.splice(i, 1, null)));
    this.#programs.set(this.#nextId, program);
    return this.#nextId++;
  }

  /** What each part of loading took, in seconds. */
  seconds(id) {
    return this.#program(id).seconds;
  }

  /** Copy bytes into a buffer, before whatever is submitted next. Whole words: a last half word is padded with 0. */
  write(id, buffer, bytes, offset = 0) {
    this.#check();
    this.#device.queue.writeBuffer(this.#program(id).buffers[buffer], offset, wholeWords(bytes));
  }

  /**
   * Encode plans, one after the other, `steps` times and start them; `length` grows by one a step.
   * @returns {Promise<Uint8Array>} the last plan's result after the last step, or nothing once it is done
   */
  submit(id, planNames, rows, length, steps = 1) {
    this.#check();
    const program = this.#program(id);
    const batches = split(planNames.flatMap((name) => program.plans[name].launches), SUBMITS);
    const { result } = program.plans[planNames.at(-1)];
    for (let step = 0; step < steps; step++) {
      for (const launches of batches) this.#encode(launches, rows, length + step);
    }
    return result === null ? this.#done() : this.#readBack(program, result, 0, program.buffers[result].size);
  }

  /**
   * Run a step as `submit` does, with a timestamp at the beginning and the end of each pass. Needs "timestamp-query".
   * @param {boolean} each  every dispatch in a pass of its own
   * @returns {Promise<number[]>} seconds: of the whole, or of each dispatch
   */
  async time(id, planNames, rows, length, each) {
    this.#check();
    const launches = planNames.flatMap((name) => this.#program(id).plans[name].launches);
    const passes = split(launches, each ? launches.length : SUBMITS);
    const querySet = this.#device.createQuerySet({ type: "timestamp", count: 2 * passes.length });
    try {
      passes.forEach((launches, i) => {
        const stamps = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
        this.#encode(launches, rows, length, stamps);
      });
      const stamps = await this.#resolve(querySet);
      const seconds = (from, to) => Number(stamps[to] - stamps[from]) / 1e9;
      return each ? passes.map((_, i) => seconds(2 * i, 2 * i + 1)) : [seconds(0, stamps.length - 1)];
    } finally {
      querySet.destroy();
    }
  }

  /** Copy bytes of a buffer back; size and offset are multiples of 4. */
  read(id, buffer, size, offset = 0) {
    this.#check();
    return this.#readBack(this.#program(id), buffer, offset, size);
  }

  /**
   * Give buffers so many bytes, one after another; what is in them stays, and steps in flight end with the old ones.
   * Calls for one program wait for each other: one that its caller no longer waits for goes on.
   * @param {[buffer: number, size: number][]} sizes
   * @throws OutOfMemory; the buffers that did not grow are as they were. Closed where the program is unloaded meanwhile
   */
  async grow(id, sizes) {
    const program = this.#program(id);
    const grown = program.growth.then(() => this.#growNow(id, sizes));
    program.growth = grown.catch(() => {}); // its own caller is told
    return grown;
  }

  async #growNow(id, sizes) {
    let unfreed = 0;
    for (const [number, size] of sizes) {
      const program = this.#program(id); // it may have been unloaded while this waited
      const old = program.buffers[number];
      if (size <= old.size) continue;
      this.#check();
      const buffer = await this.#larger(old, size);
      if (!program.live) {
        this.#free([buffer]);
        throw unloaded(id);
      }
      this.#copy(old, buffer);
      program.buffers[number] = buffer; // at once: no step may come between the copy and this
      this.#rebind(program, number);
      this.#free([old]); // the browser waits for the steps that use it, and for the copy
      unfreed += old.size;
      if (unfreed <= UNFREED) continue;
      await this.#device.queue.onSubmittedWorkDone();
      unfreed = 0;
    }
  }

  /** Free every buffer of a program. */
  unload(id) {
    const program = this.#program(id);
    program.live = false;
    this.#free([...program.buffers, ...[...program.staging.values()].flat()]);
    this.#programs.delete(id);
  }

  /** Free everything and give the device back. */
  close() {
    for (const id of [...this.#programs.keys()]) this.unload(id);
    this.#device.destroy(); // readings on their way fail, and free what they hold
  }

  #program(id) {
    const program = this.#programs.get(id);
    if (!program) throw unloaded(id);
    return program;
  }

  /** Throw what WebGPU reported meanwhile, once; a lost device stays lost. */
  #check() {
    const fault = this.#fault;
    if (!fault) return;
    if (fault.name !== "DeviceLost") this.#fault = null;
    throw fault;
  }

  async #allocate(specs) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const most = Math.min(this.limits.maxBufferSize, this.limits.maxStorageBufferBindingSize);
    const large = specs.find(({ size }) => size > most);
    if (large) {
      const sizes = { [large.name]: large.size, limit: most };
      throw failure("OutOfMemory", `buffer ${large.name} needs ${large.size} bytes; this GPU allows ${most}`, { sizes });
    }
    const buffers = [];
    try {
      await guarded(this.#device, () => {
        for (const { name, size } of specs) {
          buffers.push(this.#device.createBuffer({ label: name, size: roundUp(size), usage }));
          this.bytes += buffers.at(-1).size;
        }
      });
    } catch (error) {
      const wanted = specs.reduce((sum, { size }) => sum + size, 0);
      this.#free(buffers);
      const message = `${Math.round(wanted / 2 ** 20)} MiB of GPU memory were wanted: ${error.message}`;
      throw failure(error.name, `${message}; try a smaller context or model`, { sizes: { total: wanted } });
    }
    return buffers;
  }

  /** A buffer like `old`, but larger and empty. */
  async #larger(old, size) {
    let buffer;
    try {
      await guarded(this.#device, () => {
        buffer = this.#device.createBuffer({ label: old.label, size: roundUp(size), usage: old.usage });
        this.bytes += buffer.size;
      });
    } catch (error) {
      this.#free([buffer]);
      const sizes = { [old.label]: size };
      throw failure(error.name, `${old.label} cannot grow to ${size} bytes: ${error.message}`, { sizes });
    }
    return buffer;
  }

  #copy(from, to) {
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(from, 0, to, 0, from.size);
    this.#device.queue.submit([encoder.finish()]);
  }

  /** New bind groups for the dispatches that use a buffer. */
  #rebind({ plans, buffers }, number) {
    for (const launch of Object.values(plans).flatMap(({ launches }) => launches)) {
      if (launch.bound.some(([, buffer]) => buffer === number)) bind(this.#device, launch, buffers);
    }
  }

  #free(buffers) {
    for (const buffer of buffers.filter(Boolean)) {
      this.bytes -= buffer.size;
      buffer.destroy();
    }
  }

  /** Stream every tensor through its import kernel, in the order given. */
  async #upload(linked, program, pipelines, sources, meter) {
    const staging = (name) => program.buffers[linked.buffers.findIndex((b) => b.name === name && b.kind === "staging")];
    const [raw, params] = [staging("raw"), staging("params")];
    const bytes = new Uint8Array(raw ? raw.size : 0);
    const throttle = new Throttle(this.#device.queue);
    for (const upload of linked.uploads) {
      const pipeline = await pipelines[upload.dispatch.pipeline];
      const launch = launchOf(this.#device, upload.dispatch, pipeline, program.buffers);
      for (const [row, rows] of pieces(upload)) {
        const size = upload.source < 0 ? 0 : rows * upload.rowBytes;
        const offset = upload.offset + row * upload.rowBytes;
        if (size) await this.#fill(raw, bytes.subarray(0, size), sources[upload.source], offset);
        this.#device.queue.writeBuffer(params, 0, new Uint32Array([row, rows, ...upload.params]));
        this.#encode([launch], rows, 0);
        await throttle.passed(size);
        meter.moved(size);
      }
      this.#check();
      meter.finished();
    }
    await this.#device.queue.onSubmittedWorkDone();
    meter.report();
  }

  async #fill(buffer, bytes, source, offset) {
    source.forget(offset);
    await source.readInto(bytes, offset);
    // The bytes behind a last half word are of no use to the kernel; they lie inside both buffers.
    this.#device.queue.writeBuffer(buffer, 0, bytes.buffer, 0, roundUp(bytes.length));
  }

  async #link(linked, program, ready) {
    await guarded(this.#device, () => {
      for (const [name, { dispatches, result }] of Object.entries(linked.plans)) {
        const launches = dispatches.map((d) => launchOf(this.#device, d, ready[d.pipeline], program.buffers));
        program.plans[name] = { launches, result };
      }
    });
  }

  /** @param {GPUComputePassTimestampWrites} [timestampWrites] */
  #encode(launches, rows, length, timestampWrites) {
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass({ timestampWrites });
    const most = this.limits.maxComputeWorkgroupsPerDimension;
    for (const { pipeline, group, grid, label } of launches) {
      const [x, y, z] = [extent(grid[0], rows, length), extent(grid[1], rows, length), extent(grid[2], rows, length)];
      if (!(x && y && z)) continue;
      if (x > most || y > most || z > most) throw tooLarge(label, { x, y, z }, most);
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, y, z);
    }
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
  }

  /** The timestamps of a query set in nanoseconds, as big integers. */
  async #resolve(querySet) {
    const size = 8 * querySet.count;
    const ticks = this.#device.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    const encoder = this.#device.createCommandEncoder();
    encoder.resolveQuerySet(querySet, 0, querySet.count, ticks, 0);
    this.#device.queue.submit([encoder.finish()]);
    try {
      const bytes = await this.#readBack({ buffers: [ticks], staging: new Map(), live: false }, 0, 0, size);
      return new BigUint64Array(bytes.buffer);
    } finally {
      ticks.destroy();
    }
  }

  async #done() {
    await this.#device.queue.onSubmittedWorkDone();
    this.#check();
    return new Uint8Array();
  }

  async #readBack(program, number, offset, size) {
    const staging = program.staging.get(size)?.pop() ?? this.#mappable(size);
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(program.buffers[number], offset, staging, 0, size);
    this.#device.queue.submit([encoder.finish()]);
    try {
      await this.#mapped(staging);
      this.#check();
    } catch (error) {
      this.#free([staging]);
      throw error;
    }
    const bytes = new Uint8Array(staging.getMappedRange()).slice();
    staging.unmap();
    this.#recycle(program, staging);
    return bytes;
  }

  async #mapped(staging) {
    this.#reading += 1;
    if (this.#reading === 1 && !this.info.software) this.#hurry();
    try {
      await staging.mapAsync(GPUMapMode.READ);
    } catch (error) {
      await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, 50))]); // the reason may come later
      throw this.#fault ?? failure("DeviceError", `nothing could be read back: ${error.message}`);
    } finally {
      this.#reading -= 1;
    }
  }

  /** Chromium looks for finished work every 2 ms, but at once where there is traffic: 4.2 ms a step become 2. */
  async #hurry() {
    while (this.#reading > 0) {
      this.#device.queue.submit([]);
      this.#device.pushErrorScope("validation");
      await this.#device.popErrorScope().catch(() => {}); // a lost device is told by the reading itself
    }
  }

  #mappable(size) {
    this.bytes += size;
    return this.#device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  }

  #recycle({ staging: free, live }, staging) {
    if (live) free.set(staging.size, [...(free.get(staging.size) ?? []), staging]);
    else this.#free([staging]);
  }
}

/** Counts what was uploaded and tells it now and then. */
class Meter {
  #onProgress;
  #started = performance.now();
  #told = 0;
  #state = { phase: "weights", loaded: 0, total: 0, tensors: 0, seconds: 0 };

  constructor(uploads, onProgress) {
    this.#onProgress = onProgress;
    this.#state.total = uploads.reduce((sum, u) => sum + (u.source < 0 ? 0 : u.rows * u.rowBytes), 0);
  }

  moved(bytes) {
    this.#state.loaded += bytes;
    if (performance.now() - this.#told >= PROGRESS_MS) this.report();
  }

  finished() {
    this.#state.tensors += 1;
  }

  report() {
    this.#told = performance.now();
    this.#state.seconds = (this.#told - this.#started) / 1000;
    this.#onProgress?.({ ...this.#state });
  }
}

/** Lets uploads run at most two batches ahead of the GPU, which bounds what the browser holds of them. */
class Throttle {
  #queue;
  #bytes = 0;
  #count = 0;
  #before = Promise.resolve();

  constructor(queue) {
    this.#queue = queue;
  }

  async passed(bytes) {
    this.#bytes += bytes;
    this.#count += 1;
    if (this.#bytes < IN_FLIGHT && this.#count < IMPORTS_IN_FLIGHT) return;
    this.#bytes = this.#count = 0;
    const batch = this.#queue.onSubmittedWorkDone();
    await this.#before;
    this.#before = batch;
  }
}

/** An array as at most `count` arrays in order. */
function split(items, count) {
  const size = Math.ceil(items.length / count);
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** [first row, rows] of every piece of an upload. */
function* pieces({ rows, rowsPerPiece }) {
  for (let row = 0; row < rows; row += rowsPerPiece) yield [row, Math.min(rowsPerPiece, rows - row)];
}

function extent(size, rows, length) {
  if (typeof size === "number") return size;
  if (size[0] !== "split") return Math.ceil((size[0] === "rows" ? rows : length) / size[1]);
  const [, tile, tiles, wanted, most, least] = size;
  const parts = Math.max(1, Math.min(most, Math.floor(wanted / (tiles * Math.ceil(rows / tile)))));
  return parts >= least ? parts : 0;
}

function wholeWords(bytes) {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(roundUp(bytes.length));
  padded.set(bytes);
  return padded;
}

/** A dispatch with its bind group, ready to be encoded again and again. */
function launchOf(device, { buffers: bound, grid }, { pipeline, layout, label }, all) {
  return bind(device, { pipeline, layout, label, bound, grid, group: null }, all);
}

/** Give a launch the buffers it binds. */
function bind(device, launch, all) {
  const { layout, label, bound } = launch;
  const entries = bound.map(([binding, buffer]) => ({ binding, resource: { buffer: all[buffer] } }));
  launch.group = device.createBindGroup({ label: `kernel ${label}`, layout, entries });
  return launch;
}

function tooLarge(kernel, grid, most) {
  const wanted = `a grid of ${Object.values(grid).join(" x ")} workgroups; this GPU allows ${most} each way`;
  return failure("DeviceError", `kernel ${kernel} wants ${wanted}`, { kernel, sizes: { ...grid, limit: most } });
}

/** Records into `seconds` what named promises take. */
function stopwatch(seconds) {
  return async (part, promise) => {
    const started = performance.now();
    const result = await promise;
    seconds[part] = (performance.now() - started) / 1000;
    return result;
  };
}

/** Start compiling everything; returns a promise for each pipeline and its bind group layout. */
function compile(device, { modules, pipelines }) {
  const layouts = new Map();
  const layoutOf = (bindings) => {
    const key = JSON.stringify(bindings);
    if (!layouts.has(key)) layouts.set(key, bindGroupLayout(device, bindings));
    return layouts.get(key);
  };
  device.pushErrorScope("validation"); // a bad module is told by the pipelines that need it
  const compiled = modules.map((code) => ({ code, module: device.createShaderModule({ code }) }));
  device.popErrorScope();
  const started = pipelines.map((spec) => createPipeline(device, spec, compiled[spec.module], layoutOf(spec.bindings)));
  for (const pipeline of started) pipeline.catch(() => {}); // told to whoever needs it first
  return started;
}

function bindGroupLayout(device, bindings) {
  const type = { read: "read-only-storage", read_write: "storage" };
  const visibility = GPUShaderStage.COMPUTE;
  const entries = bindings.map(([binding, access]) => ({ binding, visibility, buffer: { type: type[access] } }));
  return device.createBindGroupLayout({ entries });
}

async function createPipeline(device, { label, constants }, { code, module }, layout) {
  try {
    const pipeline = await device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, constants },
    });
    return { pipeline, layout, label };
  } catch (error) {
    const { messages } = await module.getCompilationInfo();
    const first = messages.find(({ type }) => type === "error");
    const message = `kernel ${label}: ${first ? located(first, code) : error.message}`;
    throw failure("ShaderError", message, { kernel: label, ...(first && { line: first.lineNum }) });
  }
}

function located({ message, lineNum }, code) {
  const line = code.split("\n")[lineNum - 1] ?? "";
  return `line ${lineNum}: ${message}\n    ${line.trim()}`;
}

/** Run `make`, which creates GPU objects, and throw what WebGPU has against them. */
async function guarded(device, make) {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  let popped;
  try {
    make();
  } finally {
    popped = Promise.all([device.popErrorScope(), device.popErrorScope()]);
    popped.catch(() => {}); // where make() threw, that is told
  }
  const [memory, validation] = await popped;
  const error = memory ?? validation;
  if (error) throw asFailure(error);
}

function asFailure(error) {
  const memory = error instanceof GPUOutOfMemoryError;
  return failure(memory ? "OutOfMemory" : "DeviceError", error.message);
}

function plainLimits(limits) {
  const plain = {};
  for (const name in limits) if (typeof limits[name] === "number") plain[name] = limits[name];
  return plain;
}
