"""Models that stay in the browser: real servers that fail in real ways, real Chromium, killed tabs, a full disk."""

import hashlib
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.conftest import DATA as DATA_FOLDER
from tests.models.llama2c import convert

pytestmark = pytest.mark.browser

PIECE = 64 << 10
COUNT = 12
SIZE = COUNT * PIECE - 1000
DATA = bytes(range(251)) * (SIZE // 251 + 1)
DATA = DATA[:SIZE]


def hashes(data):
    return [hashlib.sha256(data[at : at + PIECE]).hexdigest() for at in range(0, len(data), PIECE)]


class Handler(BaseHTTPRequestHandler):
    """Serves `hub.data`; with Range where `hub.ranges`; `hub.fault(handler, index)` may answer instead."""

    def do_GET(self):
        hub = self.server.hub
        start, end = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"]).groups()
        start, end = int(start), int(end or len(hub.data) - 1)
        index = start // PIECE
        hub.seen.append((self.path, index))
        if hub.fault(self, index):
            return
        if hub.ranges:
            self.answer(206, hub.data[start : end + 1], start)
        else:
            self.answer(200, hub.data)

    def answer(self, status, body, start=None, length=None):
        hub = self.server.hub
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range, ETag" if hub.expose else "")
        self.send_header("ETag", hub.etag)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(hub.data)}")
        self.end_headers()
        with suppress(OSError):  # the browser may be gone
            self.wfile.write(body)
        self.close_connection = True

    def do_HEAD(self):
        self.answer(200, b"", length=len(self.server.hub.data))

    def log_message(self, *args):
        pass


class Hub:
    """A model hub: another origin than the page's."""

    def __init__(self):
        self.data, self.etag, self.ranges, self.expose = DATA, '"1"', True, True
        self.seen: list[tuple[str, int]] = []
        self.fault = lambda handler, index: False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.hub = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def pieces(self):
        return [index for _, index in self.seen]

    def holds_from(self, index):
        """Answers from this piece on wait until the returned event is set; the second event tells that one came."""
        go, came = threading.Event(), threading.Event()

        def hold(handler, piece):
            if piece >= index:
                came.set()
                go.wait(20)
            return False

        self.fault = hold
        return go, came

    def close(self):
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def entry(hub):
    """What site.json would say of the file."""
    return {
        "name": "tiny",
        "url": f"{hub.url}/tiny.gguf",
        "bytes": SIZE,
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "piece_bytes": PIECE,
        "pieces": hashes(DATA),
    }


@pytest.fixture
def unknown(entry):
    """The same of which only the address is known."""
    return {name: entry[name] for name in ("name", "url", "piece_bytes")}


@pytest.fixture
def tab(page, url):
    """A page with the modules at hand, whose browser's store is empty."""
    return blank(page, url)


def blank(page, url):
    page.goto(f"{url}/site.json")
    page.evaluate(
        """async () => {
            window.cache = await import("/modules/cache.js");
            const { openStored } = await import("/modules/stored_source.js");
            window.hash = async (bytes) => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)),
                (byte) => byte.toString(16).padStart(2, "0")).join("");
            window.read = async (entry) => {
                window.events = [];
                try {
                    window.source = await openStored(entry, (event) => events.push(event));
                    const bytes = new Uint8Array(source.size);
                    for (let at = 0; at < source.size; at += 100_000) {
                        source.forget(at);
                        await source.readInto(bytes.subarray(at, at + 100_000), at);
                    }
                    while (events.length && events.at(-1).loaded < source.size) // the disk is behind the reader
                        await new Promise((resolve) => setTimeout(resolve, 10));
                    source.close();
                    return await hash(bytes);
                } catch ({ name, message }) {
                    return [name, message];
                }
            };
        }"""
    )
    return page


def read(tab, entry):
    """SHA-256 of all that the loader would get, or the error's name and text."""
    return tab.evaluate("entry => read(entry)", entry)


def stored(tab):
    return tab.evaluate("cache.list()")


def wait_for(page, condition):
    """Playwright's own takes a promise for true."""
    while not page.evaluate(f"async () => {condition}"):
        page.wait_for_timeout(50)


def wait_for_bytes(tab, count):
    wait_for(tab, f"(await cache.list())[0]?.stored_bytes >= {count}")


RIGHT = hashlib.sha256(DATA).hexdigest()


# Fetching


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no Range"])
@pytest.mark.parametrize("known", ["entry", "unknown"])
def test_a_file_is_read_as_it_is_fetched_once_and_then_without_a_server(tab, hub, known, ranges, request):
    entry, hub.ranges = request.getfixturevalue(known), ranges
    assert read(tab, entry) == RIGHT
    assert sorted(hub.pieces()) == (list(range(COUNT)) if ranges else [0])
    (model,) = stored(tab)
    assert (model["name"], model["bytes"], model["stored_bytes"], model["complete"]) == ("tiny", SIZE, SIZE, True)
    hub.close()
    assert read(tab, entry) == RIGHT
    assert tab.evaluate("events") == []  # nothing was fetched


def test_pieces_are_asked_for_several_at_once(tab, hub, entry):
    together = threading.Barrier(3)  # three requests wait for each other

    def meet(handler, index):
        if 1 <= index <= 3:
            together.wait(20)
        return False

    hub.fault = meet
    assert read(tab, entry) == RIGHT


def test_progress_tells_bytes_from_which_speed_and_time_left_follow(tab, hub, entry):
    read(tab, entry)
    events = tab.evaluate("events")
    assert {event["phase"] for event in events} == {"download"}
    assert events[0]["loaded"] == 0 and events[0]["stored"] == 0
    assert [e["loaded"] for e in events] == sorted(e["loaded"] for e in events)
    assert events[-1]["loaded"] == events[-1]["total"] == SIZE and events[-1]["seconds"] > 0


def test_a_server_that_hides_the_size_is_asked_for_it(tab, hub, unknown):
    hub.expose = False
    assert read(tab, unknown) == RIGHT


# Going on


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no Range"])
def test_a_tab_killed_in_mid_download_leaves_what_came_and_the_next_goes_on(context, tab, hub, entry, url, ranges):
    hub.ranges = ranges
    if ranges:
        go, came = hub.holds_from(5)
    else:
        go, came = threading.Event(), threading.Event()
        hub.fault = lambda handler, index: half(handler, go, came)
    tab.evaluate("entry => { window.running = read(entry); }", entry)
    assert came.wait(20)
    wait_for_bytes(tab, 5 * PIECE)
    tab.close()
    go.set()
    hub.fault = lambda handler, index: False
    hub.seen.clear()
    other = blank(context.new_page(), url)
    (model,) = stored(other)
    assert not model["complete"] and 5 * PIECE <= model["stored_bytes"] < SIZE
    assert read(other, entry) == RIGHT
    assert other.evaluate("events[0].stored") == model["stored_bytes"]
    if ranges:
        assert min(hub.pieces()) >= 5


def half(handler, go, came):
    """Six pieces of the whole, then nothing."""
    hub = handler.server.hub
    handler.answer(200, hub.data[: 6 * PIECE], length=SIZE)
    handler.wfile.flush()
    came.set()
    go.wait(20)
    return True


def test_a_lost_network_is_a_named_error_and_what_came_stays(tab, hub, entry):
    def broken(handler, index):
        if index >= 4:
            handler.answer(206, b"", start=index * PIECE, length=PIECE)
        return index >= 4

    hub.fault = broken
    name, message = read(tab, entry)
    assert name in {"FetchError", "Truncated"} and entry["url"] in message
    assert f"{4 * PIECE} of {SIZE} bytes are kept" in message and "goes on from there" in message
    hub.fault = lambda handler, index: False
    hub.seen.clear()
    assert read(tab, entry) == RIGHT
    assert sorted(hub.pieces()) == list(range(4, COUNT))


def test_a_cancelled_read_keeps_the_pieces(tab, hub, entry):
    go, came = hub.holds_from(5)
    tab.evaluate("entry => { window.running = read(entry); }", entry)
    assert came.wait(20)
    wait_for_bytes(tab, 5 * PIECE)
    tab.evaluate("source.close()")
    assert tab.evaluate("running")[0] == "Closed"
    go.set()
    assert stored(tab)[0]["stored_bytes"] >= 5 * PIECE


@pytest.mark.parametrize("change", ["etag", "size"])
def test_a_file_that_changed_on_the_server_is_fetched_anew(tab, hub, unknown, change):
    hub.fault = lambda handler, index: index >= 4 and not handler.answer(404, b"")
    assert read(tab, unknown)[0] == "ModelNotFound"
    hub.fault = lambda handler, index: False
    hub.data, hub.etag = (DATA[::-1], '"2"') if change == "etag" else (DATA[::-1][: -2 * PIECE], '"1"')
    assert read(tab, unknown) == hashlib.sha256(hub.data).hexdigest()


# Wrong content


def test_a_piece_that_comes_damaged_is_fetched_again_and_never_used(tab, hub, entry):
    faults = {3: 2, 7: 1}  # so often

    def spoil(handler, index):
        if not faults.get(index):
            return False
        faults[index] -= 1
        handler.answer(206, bytes(PIECE), start=index * PIECE)
        return True

    hub.fault = spoil
    assert read(tab, entry) == RIGHT
    assert (hub.pieces().count(3), hub.pieces().count(7)) == (3, 2)


def test_content_that_stays_wrong_is_a_named_error_that_names_the_piece(tab, hub, entry):
    hub.fault = lambda handler, index: index == 6 and not handler.answer(206, bytes(PIECE), start=index * PIECE)
    name, message = read(tab, entry)
    assert name == "ChecksumMismatch" and "piece 6 of 12" in message and entry["pieces"][6] in message


def test_a_404_in_the_middle_is_a_named_error_and_the_next_load_goes_on(tab, hub, entry):
    hub.fault = lambda handler, index: index == 6 and not handler.answer(404, b"gone")
    name, message = read(tab, entry)
    assert name == "ModelNotFound" and "HTTP 404" in message and "are kept" in message
    hub.fault = lambda handler, index: False
    assert read(tab, entry) == RIGHT
    assert all(hub.pieces().count(index) == 1 for index in range(6))


def test_a_page_of_html_in_the_middle_is_asked_for_again(tab, hub, entry):
    left = [2]

    def html(handler, index):
        if index != 5 or not left[0]:
            return False
        left[0] -= 1
        handler.answer(200, b"<h1>Too many requests</h1>")
        return True

    hub.fault = html
    assert read(tab, entry) == RIGHT


def test_a_piece_damaged_on_the_disk_is_fetched_again(tab, hub, entry):
    read(tab, entry)
    damage(tab, 4)
    hub.seen.clear()
    assert read(tab, entry) == RIGHT
    assert hub.pieces() == [4]


def test_verify_finds_what_is_damaged_and_the_next_load_mends_it(tab, hub, entry):
    read(tab, entry)
    assert tab.evaluate("cache.verify('tiny')") is True
    damage(tab, 4)
    assert tab.evaluate("cache.verify('tiny')") is False
    assert stored(tab)[0]["complete"] is False
    assert read(tab, entry) == RIGHT and tab.evaluate("cache.verify('tiny')") is True


def test_an_imported_file_that_the_disk_damaged_is_a_named_error(tab):
    tab.evaluate("cache.import(new File([new Uint8Array(1000)], 'mine.gguf'))")
    damage(tab, 0)
    opened = """async () => {
        const { openByName } = await import("/modules/stored_source.js");
        const source = await openByName("mine");
        return source.read(0, 10).catch(({ name, message }) => [name, message]);
    }"""
    name, message = tab.evaluate(opened)
    assert name == "ChecksumMismatch" and "import it again" in message


def damage(tab, index):
    tab.evaluate(
        """async index => {
            const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("webllm");
            for await (const folder of root.values()) for await (const file of folder.values()) {
                if (!file.name.startsWith(`${index}-`)) continue;
                const stream = await file.createWritable({ keepExistingData: true });
                await stream.write({ type: "write", position: 100, data: "spoilt" });
                await stream.close();
            }
        }""",
        index,
    )


# Mirrors


@pytest.mark.parametrize("wrong", ["404", "silence", "another file"])
def test_the_next_mirror_is_tried(tab, hub, entry, wrong):
    def fault(handler, index):
        if handler.path == "/tiny.gguf":
            return False
        if wrong == "another file":
            handler.answer(200, b"something else")
        elif wrong == "404":
            handler.answer(404, b"")
        else:
            handler.close_connection = True
        return True

    hub.fault = fault
    assert read(tab, {**entry, "url": f"{hub.url}/first", "mirrors": [entry["url"]]}) == RIGHT


# Several tabs


def test_two_tabs_share_one_download_and_the_second_goes_on_when_the_first_dies(context, tab, hub, entry, url):
    go, came = hub.holds_from(5)
    tab.evaluate("entry => { window.running = read(entry); }", entry)
    assert came.wait(20)
    second = blank(context.new_page(), url)
    second.evaluate("entry => { window.running = read(entry); }", entry)
    second.wait_for_function(f"events.at(-1)?.loaded >= {5 * PIECE}")  # it sees the first one's progress
    assert hub.pieces().count(0) == 1
    tab.close()
    go.set()
    assert second.evaluate("running") == RIGHT
    assert all(hub.pieces().count(index) == 1 for index in range(5))


def test_two_tabs_that_live_fetch_every_piece_once(context, tab, hub, entry, url):
    go, came = hub.holds_from(5)
    second = blank(context.new_page(), url)
    for page in (tab, second):
        page.evaluate("entry => { window.running = read(entry); }", entry)
    assert came.wait(20)
    go.set()
    assert tab.evaluate("running") == second.evaluate("running") == RIGHT
    assert sorted(hub.pieces()) == list(range(COUNT))


def test_what_is_being_fetched_is_not_deleted(tab, hub, entry):
    go, came = hub.holds_from(5)
    tab.evaluate("entry => { window.running = read(entry); }", entry)
    assert came.wait(20)
    refused = tab.evaluate("cache.delete('tiny').catch(({name, message}) => [name, message])")
    assert refused[0] == "RequestError" and "tiny is being fetched" in refused[1]
    go.set()
    assert tab.evaluate("running") == RIGHT


# Room


def test_a_full_disk_is_refused_beforehand_and_told_with_what_could_be_deleted(context, tab, hub, entry, url):
    read(tab, entry)
    limit = 3 * SIZE // 2
    context.new_cdp_session(tab).send("Storage.overrideQuotaForOrigin", {"origin": url, "quotaSize": limit})
    hub.data = DATA[::-1]
    other = {"name": "other", "url": f"{hub.url}/other.gguf", "piece_bytes": PIECE}
    name, message = read(tab, other)
    assert name == "StorageFull"
    assert f"other needs 0.8 MB ({SIZE} bytes) more" in message
    free = int(re.search(r"has 0\.\d MB \((\d+) bytes\) free", message)[1])
    assert 0 < free < SIZE // 2
    assert "could be deleted: tiny (0.8 MB)" in message
    assert [index for path, index in hub.seen if path == "/other.gguf"] == [0]  # nothing more was fetched in vain
    assert tab.evaluate("cache.delete('tiny')") is True
    assert read(tab, other) == hashlib.sha256(hub.data).hexdigest()


# Managing what is there


def test_a_model_is_exported_deleted_and_imported_again(tab, hub, entry):
    read(tab, entry)
    exported = """async () => {
        window.file = await cache.export("tiny");
        return [file.name, file.size, await hash(await file.arrayBuffer())];
    }"""
    assert tab.evaluate(exported) == ["tiny.gguf", SIZE, RIGHT]
    copied = tab.evaluate("async () => cache.import_(new File([await file.arrayBuffer()], 'mine.gguf'))")
    assert (copied["name"], copied["complete"], copied["url"]) == ("mine", True, None)
    assert [model["name"] for model in stored(tab)] in (["mine", "tiny"], ["tiny", "mine"])
    assert tab.evaluate("cache.verify('mine')") is True
    assert tab.evaluate("cache.delete('tiny')") is True and tab.evaluate("cache.delete('tiny')") is False
    assert [model["name"] for model in stored(tab)] == ["mine"]


@pytest.mark.parametrize(
    ("call", "name", "words"),
    [
        ("cache.verify('no')", "ModelNotFound", "there are: none"),
        ("cache.export('no')", "ModelNotFound", "there are: none"),
        ("cache.import(new File(['x'], 'a/b.gguf'), 'a/b')", "RequestError", "no / "),
        ("cache.import(new File([], 'a.gguf'))", "Truncated", "empty"),
    ],
)
def test_bad_requests_are_named_errors(tab, call, name, words):
    came, message = tab.evaluate(f"{call}.catch(({{name, message}}) => [name, message])")
    assert came == name and words in message


@pytest.mark.parametrize(
    "wrong", [{"bytes": -1}, {"piece_bytes": 0}, {"sha256": "../x"}, {"pieces": ["ab"]}, {"bytes": None}]
)
def test_an_entry_that_contradicts_itself_is_refused(tab, entry, wrong):
    name, message = read(tab, {**entry, **wrong})
    assert name == "RequestError" and "site.json" in message


def test_without_a_private_file_system_the_cache_api_keeps_the_pieces(page, url, hub, entry):
    page.add_init_script("delete FileSystemFileHandle.prototype.createWritable")
    tab = blank(page, url)
    assert read(tab, entry) == RIGHT
    hub.close()
    assert read(tab, entry) == RIGHT
    assert tab.evaluate("caches.open('webllm').then((cache) => cache.keys()).then((keys) => keys.length)") == COUNT + 1
    assert tab.evaluate("cache.export('tiny').then((file) => file.arrayBuffer()).then(hash)") == RIGHT
    assert tab.evaluate("cache.delete('tiny')") is True and stored(tab) == []


def test_a_broken_manifest_is_as_good_as_nothing(tab, hub, entry):
    read(tab, entry)
    tab.evaluate(
        """async () => {
            const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("webllm");
            for await (const folder of root.values()) {
                const stream = await (await folder.getFileHandle("manifest.json")).createWritable();
                await stream.write("{");
                await stream.close();
            }
        }"""
    )
    assert stored(tab) == []
    assert read(tab, entry) == RIGHT


# Whole loads, through the built wheel


@pytest.fixture(scope="session")
def stories(tmp_path_factory) -> bytes:
    """A real model of 1 MB, as a GGUF file."""
    folder = DATA_FOLDER / "stories260K"
    path = tmp_path_factory.mktemp("models") / "stories260K.gguf"
    convert(folder / "stories260K.bin", folder / "tok512.bin", path)
    return path.read_bytes()


@pytest.fixture
def model(hub, stories):
    """The model on the hub, as site.json would describe it."""
    hub.data = stories
    whole = hashlib.sha256(stories).hexdigest()
    sizes = {"bytes": len(stories), "sha256": whole, "piece_bytes": PIECE, "pieces": hashes(stories)}
    return {"name": "stories", "url": f"{hub.url}/stories.gguf", **sizes}


START = """async (model) => {
    window.events = [];
    window.aborting = new AbortController();
    const options = { context: 128, onProgress: (event) => events.push(event), signal: aborting.signal };
    window.loading = webllm.load(model, options).then(async (llm) => {
        const ids = await llm.generate([1, 403], 6);
        await llm.close();
        return ids;
    }).catch(({ name, message }) => [name, message]);
}"""


def start(page, url, model):
    page.goto(f"{url}/?model=")
    page.evaluate(START, model)


def ids(page):
    return page.evaluate("loading")


def test_a_load_that_was_killed_goes_on_and_the_next_ones_ask_no_server(context, url, hub, model, requests_seen):
    go, came = hub.holds_from(8)
    first = context.new_page()
    start(first, url, model)
    assert came.wait(60)
    wait_for(first, "(await webllm.cache.list())[0]?.stored_bytes >= 8 * 65536")
    first.close()
    go.set()
    hub.seen.clear()

    second = context.new_page()
    start(second, url, model)
    answer = ids(second)
    assert len(answer) == 6 and isinstance(answer[0], int)
    assert min(hub.pieces()) >= 8 and sorted(set(hub.pieces())) == sorted(hub.pieces())
    phases = second.evaluate("events.map(({ phase }) => phase)")
    assert {"download", "memory", "weights"} <= set(phases)
    assert second.evaluate("events.find(({ phase }) => phase === 'download').stored") >= 8 * PIECE
    second.close()

    hub.close()
    third = context.new_page()
    start(third, url, "stories")  # by its name, and the hub is gone
    assert ids(third) == answer
    assert "download" not in third.evaluate("events.map(({ phase }) => phase)")
    listed = third.evaluate("webllm.cache.list()")
    assert [(m["name"], m["complete"], m["sha256"]) for m in listed] == [("stories", True, model["sha256"])]


def test_a_cancelled_load_keeps_its_pieces(page, url, hub, model):
    go, came = hub.holds_from(8)
    start(page, url, model)
    assert came.wait(60)
    wait_for(page, "(await webllm.cache.list())[0]?.stored_bytes >= 8 * 65536")
    page.evaluate("aborting.abort()")
    assert ids(page)[0] == "AbortError"
    go.set()
    assert page.evaluate("webllm.cache.list()")[0]["stored_bytes"] >= 8 * PIECE


def test_where_only_the_whole_hash_is_known_a_wrong_file_ends_the_load_and_is_deleted(page, url, hub, model):
    hub.data = hub.data[:-1] + b"!"
    start(page, url, only_whole(model))
    name, message = ids(page)
    assert name == "ChecksumMismatch" and model["sha256"] in message and "it was deleted" in message
    assert page.evaluate("webllm.cache.list()") == []


def test_a_right_file_is_complete_by_its_whole_hash_and_keep_false_stores_none(page, url, hub, model):
    start(page, url, only_whole(model))
    answer = ids(page)
    assert len(answer) == 6
    wait_for(page, "(await webllm.cache.list())[0].complete")
    assert page.evaluate("webllm.cache.delete('stories')") is True
    load = """async (model) => {
        const llm = await webllm.load(model, { context: 128, keep: false });
        return llm.generate([1, 403], 6);
    }"""
    assert page.evaluate(load, model) == answer
    assert page.evaluate("webllm.cache.list()") == []


def only_whole(model):
    return {name: model[name] for name in ("name", "url", "sha256", "piece_bytes")}


# The same in Python

PYTHON = """async () => {
    const { loadPyodide } = await import("./modules/pyodide.mjs");
    const { openSource } = await import("./modules/sources.js");
    window.webllmHost = { cache: await import("./modules/cache.js"), openSource };
    const { wheels } = await (await fetch("site.json")).json();
    const lockFileURL = new URL("modules/pyodide-lock.json", location.href).href;
    const python = await loadPyodide({ indexURL: new URL("pyodide/", location.href).href, lockFileURL });
    for (const wheel of wheels)
        python.unpackArchive(await (await fetch(`wheels/${wheel}`)).arrayBuffer(), "wheel");
    window.run = async (code) => JSON.parse(await python.runPythonAsync(code));
}"""


def test_python_in_the_page_has_the_same_store(page, url, hub, unknown):
    page.goto(f"{url}/bench.html")
    page.evaluate(PYTHON)

    def run(code):
        return page.evaluate("code => run(code)", code)

    fetched = f"""
import asyncio, json
from webllm import cache, errors, host

events = []
source = await host.current().open_source({unknown["url"]!r}, events.append)
data = await source.read(0, source.size)
while events[-1]["loaded"] < source.size:
    await asyncio.sleep(0.01)
source.close()
json.dumps([len(data), events[-1]["phase"], events[-1]["loaded"]])"""
    assert run(fetched) == [SIZE, "download", SIZE]
    [model] = run("json.dumps(await cache.list())")
    assert model["complete"] and model["url"] == unknown["url"] and model["sha256"] is None
    assert run("json.dumps(await cache.verify('tiny', events.append))") is True
    assert run("json.dumps(events[-1]['phase'])") == "verify"
    imported = "file = await cache.export('tiny')\njson.dumps(await cache.import_(file, 'copy'))"
    assert run(imported)["stored_bytes"] == SIZE
    by_name = "copy = await host.current().open_source('copy')\njson.dumps(await copy.read(0, copy.size) == data)"
    assert run(by_name) is True
    missing = "try: await cache.verify('no')\nexcept errors.ModelNotFound as error: said = str(error)\njson.dumps(said)"
    assert "there are: copy, tiny" in run(missing) or "there are: tiny, copy" in run(missing)
    assert run("json.dumps([await cache.delete(name) for name in ('copy', 'tiny', 'no')])") == [True, True, False]
