"""The GPU verbs of bridge.js on small programs made by hand."""

import pytest

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
            const { openDevice } = await import("/bridge.js");
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
        const { openSource } = await import("/sources.js");
        const before = bridge.bytes;
        const source = await openSource(new File([Uint32Array.of(9, 9, 1, 2, 3, 4, 5)], "numbers"));
        const id = await load(linked, [source]);
        const result = [words(await bridge.read(id, 2, 20)), bridge.bytes - before];
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


def test_a_program_that_was_unloaded_is_closed(page):
    code = """async p => {
        const id = await load(p);
        bridge.unload(id);
        try { bridge.submit(id, ['count'], 1, 1); } catch ({ name }) { return name; }
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == "Closed"


def test_a_lost_device_is_told_by_the_next_read(page):
    code = """async p => {
        const { openDevice } = await import("/bridge.js");
        const own = await openDevice();
        const id = await own.load(JSON.stringify(p), []);
        const read = own.read(id, 0, 4);
        own.close();
        return read.catch(({ name }) => name);
    }"""
    assert page.evaluate(code, program([1, 1, 1])) == "DeviceLost"
