"""In a notebook in the browser no worker of ours has set `js.webllmHost`: it comes out of webllm's wheel.

What else a page's server holds, a model above all, is looked for in the folder `webllm/` beside the wheel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from importlib.resources import files
from typing import Any
from uuid import uuid4

import js
from pyodide.code import run_js
from pyodide.ffi import JsException, create_proxy, to_js

from webllm.catalog import CATALOG
from webllm.errors import FetchError

_ours = False  # whether we have set it, not a page


async def bring_javascript() -> None:
    """Set `js.webllmHost` if nobody has. Raises `FetchError` for a wheel that was built without the page."""
    global _ours
    if hasattr(js, "webllmHost"):
        return
    code = files("webllm") / "_browser_shell" / "host.js"
    if not code.is_file():
        raise FetchError("this wheel of webllm has no JavaScript: it was built without `make page`; take another")
    url = js.URL.createObjectURL(js.Blob.new(to_js([code.read_text(encoding="utf-8")]), type="text/javascript"))
    try:
        module = await run_js("(url) => import(url)")(url)
    finally:
        js.URL.revokeObjectURL(url)
    js.webllmHost = module.host
    _ours = True


async def address_of(model: Any) -> Any:
    """Where a short name's file is: beside the wheel, else on the Hub. Other models, and all in a page, stay as is."""
    if not _ours or not isinstance(model, str) or "/" in model or model.endswith(".gguf"):
        return model
    beside = await _beside_wheel()
    if model in beside:
        return beside[model]
    if (entry := CATALOG.get(model)) is None:
        return model  # one that is stored, perhaps
    return f"https://huggingface.co/{entry.repo}/resolve/{entry.revision}/{entry.filename}"


@contextmanager
def stop_button(action: Callable[[], object]) -> Iterator[str]:
    """See `Host.stop_button`. A cell that runs hears nothing of its notebook, but its worker hears a channel."""
    name = f"webllm-{uuid4()}"
    channel, listener = js.BroadcastChannel.new(name), create_proxy(lambda _: action())
    channel.onmessage = listener
    try:
        yield f"<button onclick=\"new BroadcastChannel('{name}').postMessage('stop')\">Stop</button>"
    finally:
        channel.close()
        listener.destroy()


async def _beside_wheel() -> dict[str, str]:
    """Short name -> URL, of what lies beside the wheel that micropip has installed."""
    wheel = distribution("webllm").read_text("PYODIDE_URL")
    if not wheel:
        return {}
    manifest = js.URL.new("webllm/site.json", wheel).href
    try:
        response = await js.fetch(manifest)
    except JsException:  # no such place, or no network
        return {}
    if not response.ok:
        return {}
    models = (await response.json()).to_py()["models"]
    return {name: js.URL.new(entry["url"], manifest).href for name, entry in models.items()}
