"""The GPU verbs of bridge.js on small programs made by hand."""

import pytest

from webllm.plan import Split

pytestmark = pytest.mark.browser

# Counts its workgroups.
COUNT = """
@group(0) @binding(0) var<storage, read_write> count: atomic<u32>;
@compute @workgroup_size(1) fn main() { atomicAdd(&count, 1u); }
"""
# Adds the rows of a piece to what is there, each row one u32; params are first row, rows, a factor.
ADD = """
@group(0) @binding(0) var<storage, read> raw: array<u32>;
@group(0) @binding(1) var<storage, read> params: array<u32>;
@group(0) @binding(2) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  data[params[0] + id.x] = raw[id.x] * params[2];
}
"""


def buffer(name, size, kind="state"):
    return {"name": name, "size": size, "kind": kind}


def pipeline(module, *access):
    return {"label": f"kernel{module}", "module": module, "constants": {}, "bindings": [*enumerate(access)]}


def program(grid, code=COUNT, size=4):
    """One counter, one plan `count` over it."""
    dispatch = {"pipeline": 0, "buffers": [[0, 0]], "grid": grid}
    plans = {"count": {"dispatches": [dispatch], "result": 0}}
    pipelines = [pipeline(0, "read_write")]
    return {
        "buffers": [buffer("count", size)],
        "modules": [code],
        "pipelines": pipelines,
        "plans": plans,
        "uploads": [],
    }


@pytest.fixture(scope="module")
def page(browser, url):
    """A page with an open device in `bridge`; `run` gives a result, or an error's name and text."""
    page = browser.new_page()
    page.goto(f"{url}/site.json")
    page.evaluate(
        """async () => {
            const { openDevice } = await import("/modules/bridge.js");
            window.bridge = await openDevice();
            window.words = (bytes) => [...new Uint32Array(bytes.buffer)];
            window.load = (linked, sources = []) => bridge.load(JSON.stringify(linked), sources);
        }"""
    )
    yield page
    page.evaluate("bridge.close()")
    page.close()


def failure_of(page, linked):
    return page.evaluate("linked => load(linked).catch(({name, message}) => [name, message])", linked)


def test_the_device_tells_what_it_is(page):
    info, features, limits = page.evaluate("[bridge.info, bridge.features, bridge.limits]")
    assert "swiftshader" in info["name"] and info["software"] is True
    assert "subgroups" in features
    assert limits["maxStorageBufferBindingSize"] > 128 << 20  # more than the default was asked for


def test_length_grows_by_one_a_step_and_grids_round_up(page):
    code = "async p => { const id = await load(p); return words(await bridge.submit(id, ['count'], 1, 7, 3)); }"
    assert page.evaluate(code, program([["length", 4], ["rows", 1], 1])) == [2 + 2 + 3]


@pytest.mark.parametrize("least", [1, 2])
def test_products_are_cut_as_python_cuts_them(page, least):
    code = "async p => { const id = await load(p); return words(await bridge.submit(id, ['count'], p.rows, 1)); }"
    for rows in (1, 64, 65, 500):
        numbers = [64, 3, 24, 5, least]
        counted = page.evaluate(code, program([["split", *numbers], 1, 1]) | {"rows": rows})
        assert counted == [Split(*numbers)(rows, 1)]


def test_a_step_is_timed_by_the_gpu_as_a_whole_and_by_dispatch(page):
    code = """async p => {
        p.plans.count.dispatches = Array(7).fill(p.plans.count.dispatches[0]);
        const [id, before] = [await load(p), bridge.bytes];
        const started = performance.now();
        const whole = await bridge.time(id, ["count"], 1, 3000, false);
        const each = await bridge.time(id, ["count", "count"], 1, 3000, true);
        const waited = (performance.now() - started) / 1000;
        const counted = words(await bridge.read(id, 0, 4));
        return [bridge.features, whole, each, waited, counted, bridge.bytes - before];
    }"""
    features, whole, each, waited, counted, more = page.evaluate(code, program([["length", 1], 1, 1]))
    assert "timestamp-query" in features  # SwiftShader has it
    assert (len(whole), len(each)) == (1, 14) and min(each) >= 0
    assert 0 < whole[0] + sum(each) <= waited + 15e-4  # Chromium rounds to 100 us
    assert counted == [3 * 7 * 3000]
    assert more == 4  # the readback of the counter; what timing needed is freed


def test_timing_that_fails_frees_its_timestamps(page):
    code = """async p => {
        const [id, destroy] = [await load(p), GPUQuerySet.prototype.destroy];
        let freed = 0;
        GPUQuerySet.prototype.destroy = function () { freed++; destroy.call(this); };
        const name = await bridge.time(id, ["count"], 1, 70_000, false).catch(({name}) => name);
        return [name, freed];
    }"""
    assert page.evaluate(code, program([["length", 1], 1, 1])) == ["DeviceError", 1]


def test_a_grid_with_a_zero_is_skipped(page):
    code = "async p => { const id = await load(p); return words(await bridge.submit(id, ['count'], 0, 7)); }"
    assert page.evaluate(code, program([["rows", 4], 1, 1])) == [0]


def test_writes_come_before_the_next_step_and_reads_after_it(page):
    code = """async p => {
        const id = await load(p);
        bridge.write(id, 0, Uint8Array.of(10, 0, 0, 0), 0);
        const first = bridge.submit(id, ['count'], 1, 1);
        bridge.write(id, 0, Uint8Array.of(20), 0);
        const second = bridge.submit(id, ['count'], 1, 1);
        return [await first, await second, await bridge.read(id, 0, 4)].map(words).flat();
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == [11, 21, 21]


def test_uploads_go_through_their_kernel_piece_by_piece_and_staging_is_freed(page):
    upload = {"source": 0, "offset": 8, "rows": 5, "rowBytes": 4, "rowsPerPiece": 2, "params": [3]}
    upload["dispatch"] = {"pipeline": 0, "buffers": [[0, 0], [1, 1], [2, 2]], "grid": [["rows", 1], 1, 1]}
    linked = {
        "buffers": [buffer("raw", 12, "staging"), buffer("params", 32, "staging"), buffer("data", 20, "weight")],
        "modules": [ADD],
        "pipelines": [pipeline(0, "read", "read", "read_write")],
        "plans": {},
        "uploads": [upload],
    }
    code = """async linked => {
        const { openSource } = await import("/modules/sources.js");
        const before = bridge.bytes;
        const source = await openSource(new File([Uint32Array.of(9, 9, 1, 2, 3, 4, 5)], "numbers"));
        const id = await load(linked, [source]);
        const result = [words(await bridge.read(id, 2, 20)), bridge.bytes - before - 20]; // read through 20
        bridge.unload(id);
        return [...result, bridge.bytes - before];
    }"""
    assert page.evaluate(code, linked) == [[3, 6, 9, 12, 15], 20, 0]


def test_a_kernel_that_does_not_compile_is_shown_with_its_line(page):
    before = page.evaluate("bridge.bytes")
    name, message = failure_of(page, program([1, 1, 1], COUNT.replace("atomicAdd(&count, 1u)", "nonsense(count)")))
    assert name == "ShaderError"
    assert "kernel0" in message and "line 3" in message and "fn main() { nonsense(count); }" in message
    assert page.evaluate("bridge.bytes") == before


@pytest.mark.parametrize("gib", [3, 512])
def test_too_large_a_buffer_is_out_of_memory_and_nothing_stays(page, gib):
    before = page.evaluate("bridge.bytes")
    name, message = failure_of(page, program([1, 1, 1], size=gib << 30))
    assert name == "OutOfMemory" and str(gib << 30) in message
    assert page.evaluate("bridge.bytes") == before


@pytest.mark.parametrize(
    ("spoil", "details"),
    [
        ("p.modules[0] = p.modules[0].replace('atomicAdd(&count, 1u)', 'x')", {"kernel": "kernel0", "line": 3}),
        ("p.modules[0] = p.modules[0].replace('size(1)', 'size(4096)')", {"kernel": "kernel0"}),
        ("p.buffers[0].size = 2 ** 40", {"sizes": {"count": 2**40}}),
    ],
    ids=["a bad shader", "too large a workgroup", "too large a buffer"],
)
def test_an_error_of_loading_carries_the_kernel_the_line_and_the_sizes(page, spoil, details):
    code = f"""async p => {{
        {spoil};
        return load(p).catch(({{kernel, line, sizes}}) => ({{kernel, line, sizes}}));
    }}"""
    got = page.evaluate(code, program([1, 1, 1]))
    sizes = {name: size for name, size in (got.pop("sizes", None) or {}).items() if name != "limit"}
    assert {k: v for k, v in {**got, "sizes": sizes}.items() if v} == details


def test_too_large_a_grid_names_the_kernel_and_the_next_step_works(page):
    code = """async p => {
        const id = await load(p);
        const refused = () => bridge.submit(id, ['count'], 1, 70000);
        const error = await Promise.try(refused).catch(({ name, kernel, sizes }) => ({ name, kernel, sizes }));
        return [error, words(await bridge.submit(id, ['count'], 1, 5))];
    }"""
    error, count = page.evaluate(code, program([["length", 1], 1, 1]))
    sizes = {"x": 70000, "y": 1, "z": 1, "limit": 65535}
    assert error == {"name": "DeviceError", "kernel": "kernel0", "sizes": sizes}
    assert count == [5]


def test_what_webgpu_reports_outside_of_a_call_is_told_by_the_next_one(page):
    """A write beyond the buffer's end is reported some time later."""
    code = """async p => {
        const id = await load(p);
        bridge.write(id, 0, new Uint8Array(8), 0);
        const name = await bridge.submit(id, ['count'], 1, 1).catch(({ name }) => name);
        return [name, words(await bridge.submit(id, ['count'], 1, 1)).length];
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == ["DeviceError", 1]


def test_a_load_that_throws_hides_no_later_error(page):
    """A size below zero is no number of bytes to WebGPU."""
    code = """async p => {
        const id = await load(p);
        const refused = await load({ ...p, buffers: [{ ...p.buffers[0], size: -4 }] }).catch(({ name }) => name);
        bridge.write(id, 0, new Uint8Array(8), 0);
        return [refused, await bridge.submit(id, ['count'], 1, 1).catch(({ name }) => name)];
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == ["TypeError", "DeviceError"]


def test_a_buffer_grows_while_steps_are_in_flight_and_keeps_what_they_write(page):
    """The first three count in the small buffer, the copy comes after them, the other two count in the large one."""
    code = """async p => {
        const before = bridge.bytes;
        const id = await load(p);
        const flying = [1, 2, 3].map(() => bridge.submit(id, ['count'], 1, 1));
        await bridge.grow(id, [[0, 1024], [0, 512]]);
        const last = await Promise.all([...flying, bridge.submit(id, ['count'], 1, 1, 2)]);
        const result = [last.map((bytes) => words(bytes)[0]), bridge.bytes - before];
        bridge.unload(id);
        return result;
    }"""
    counts, held = page.evaluate(code, program([1, 1, 1]))
    assert counts[-1] == 5
    assert held >= 1024


def test_growth_that_fails_leaves_the_buffer_as_it_was(page):
    code = """async p => {
        const id = await load(p);
        await bridge.submit(id, ['count'], 1, 1);
        const before = bridge.bytes;
        const error = await bridge.grow(id, [[0, 2 ** 40]]).catch(({ sizes }) => sizes);
        return [error, bridge.bytes - before, words(await bridge.submit(id, ['count'], 1, 1))];
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == [{"count": 2**40}, 0, [2]]


@pytest.mark.parametrize("sizes", [[1024, 2048], [2048, 1024], [2**40, 2048]])
def test_growths_of_one_buffer_at_the_same_time_wait_for_each_other(page, sizes):
    """Also for one that fails. 4 bytes are for reading back the first step's result."""
    code = """async ([p, sizes]) => {
        const before = bridge.bytes;
        const id = await load(p);
        await bridge.submit(id, ['count'], 1, 1);
        await Promise.allSettled(sizes.map((size) => bridge.grow(id, [[0, size]])));
        const held = bridge.bytes - before - 4;
        const [count] = words(await bridge.submit(id, ['count'], 1, 1));
        bridge.unload(id);
        return [held, count, bridge.bytes - before];
    }"""
    assert page.evaluate(code, [program([1, 1, 1]), sizes]) == [2048, 2, 0]


def test_a_program_that_is_unloaded_while_it_grows_is_closed_and_another_goes_on(page):
    code = """async p => {
        const before = bridge.bytes;
        const [id, other] = [await load(p), await load(p)];
        const growths = [1024, 2048].map((size) => bridge.grow(id, [[0, size]]).catch(({ name }) => name));
        await null; // the first is under way
        bridge.unload(id);
        const names = await Promise.all(growths);
        const counts = words(await bridge.submit(other, ['count'], 1, 1));
        bridge.unload(other);
        return [names, counts, bridge.bytes - before];
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == [["Closed", "Closed"], [1], 0]


def test_a_device_that_is_closed_while_a_program_grows_frees_everything(page):
    code = """async p => {
        const { openDevice } = await import("/modules/bridge.js");
        const own = await openDevice();
        const id = await own.load(JSON.stringify(p), []);
        const growths = [1024, 2048].map((size) => own.grow(id, [[0, size]]).catch(({ name }) => name));
        await null; // the first is under way
        own.close();
        return [await Promise.all(growths), own.bytes];
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == [["Closed", "Closed"], 0]


def test_a_program_takes_its_readback_buffers_along(page):
    """Also the one that was on its way."""
    code = """async p => {
        const before = bridge.bytes;
        const id = await load(p);
        await bridge.submit(id, ['count'], 1, 1);
        const held = bridge.bytes - before;
        const flying = bridge.read(id, 0, 4);
        bridge.unload(id);
        await flying.catch(() => {});
        return [held, bridge.bytes - before];
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == [8, 0]


def test_a_program_that_was_unloaded_is_closed(page):
    code = """async p => {
        const id = await load(p);
        bridge.unload(id);
        try { bridge.submit(id, ['count'], 1, 1); } catch ({ name }) { return name; }
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == "Closed"


def test_a_lost_device_is_told_by_the_read_on_its_way_and_frees_everything(page):
    code = """async p => {
        const { openDevice } = await import("/modules/bridge.js");
        const own = await openDevice();
        const id = await own.load(JSON.stringify(p), []);
        const read = own.read(id, 0, 4);
        own.close();
        return read.catch(({ name, message }) => [name, message, own.bytes]);
    }"""
    name, message, held = page.evaluate(code, program([1, 1, 1]))
    assert name == "DeviceLost" and "await llm.reload()" in message and held == 0
