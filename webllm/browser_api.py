"""What the page's worker calls. JSON crosses in both directions, so neither side keeps the other's objects alive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import webllm
from webllm import host
from webllm.api import LLM
from webllm.errors import Closed, RequestError, WebLLMError

OnEvent = Callable[[Any], None]

_OPTIONS = ("context", "kv", "quant", "exact", "adapter", "power_preference", "tune")
_loaded: list[LLM] = []  # none or one: a worker holds one model
_calls: dict[int, asyncio.Task[Any] | None] = {}  # those that run or wait, by the page's numbers


async def call(number: int, method: str, arguments: str, on_event: Callable[[str], object]) -> str:
    """Run a function of this module by name; `arguments` is a JSON object, as is each event.

    number: the page's own for this call, by which `cancel` finds it; then the value is null. Returns {"value"} or
    {"error": {"type", "message", "details"}}, type being a class of `webllm.errors` and details the fields of a
    `DeviceError`.
    """

    def send(event: Any) -> None:
        on_event(json.dumps(event))

    _calls[number] = asyncio.current_task()
    try:
        value = await _METHODS[method](send, **json.loads(arguments))
    except WebLLMError as error:
        told = {"type": type(error).__name__, "message": str(error), "details": vars(error)}
        return json.dumps({"error": told})
    except asyncio.CancelledError:
        value = None
    finally:
        del _calls[number]
    return json.dumps({"value": value})


async def load(on_progress: OnEvent, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Load the model of this worker; returns its name, adapter and context. See `webllm.load`."""
    if _loaded:
        raise RequestError(f"{_loaded[0].name} is loaded here already: close it first, or use another worker")
    unknown = options.keys() - set(_OPTIONS)
    if unknown:
        raise RequestError(f"unknown option {', '.join(sorted(unknown))}; load() takes {', '.join(_OPTIONS)}")
    llm = await webllm.load(model, on_progress=on_progress, **options)
    _loaded.append(llm)
    return _info(llm)


async def reload(on_progress: OnEvent) -> dict[str, Any]:
    """Open the GPU anew and load the same model again; returns what `load` does."""
    llm = _current()
    await llm.reload(on_progress)
    return _info(llm)


async def generate(on_event: OnEvent, ids: Sequence[int], max_tokens: int | None = None) -> list[int]:
    """Continue token ids greedily; a stop id ends the list and is part of it."""
    return [token async for token in _current().generate(ids, max_tokens=max_tokens)]


async def chat(on_chunk: OnEvent, messages: Any = (), stream: bool = False, **options: Any) -> dict[str, Any] | None:
    """Answer a conversation, with OpenAI's names and shapes. stream: `on_chunk` gets the pieces."""
    create = _current().chat.completions.create
    if not stream:
        return (await create(messages, stream=False, **options)).to_dict()
    async for chunk in await create(messages, stream=True, **options):
        on_chunk(chunk.to_dict())
    return None


async def interrupt(on_event: OnEvent) -> None:
    """End the running request after the token that it is working on."""
    _current().interrupt()


async def cancel(on_event: OnEvent, number: int) -> None:
    """End one call, whether it runs or waits for its turn; nothing if it has ended."""
    if task := _calls.get(number):
        task.cancel()


async def bench(on_note: OnEvent, config: Mapping[str, Any], quant: str = "q4", **request: Any) -> dict[str, Any]:
    """Measure a model's shape with random weights; see `webllm.bench.Request` for what may be asked."""
    from webllm import bench
    from webllm.synthetic import checkpoint_from_config

    checkpoint, open_device = checkpoint_from_config(config, quant), host.current().open_device
    return await bench.run(open_device, checkpoint, bench.Request(**request), note=on_note) | {"quant": quant}


async def doctor(on_note: OnEvent, only: Sequence[str] = ("",)) -> dict[str, Any]:
    """Test every kernel on this GPU; see `webllm.selftest`. only: parts of the names of the cases to run."""
    from webllm.selftest import selftest
    from webllm.selftest.cases import all_cases

    device = await host.current().open_device()
    adapter, features = asdict(device.info), sorted(device.features)
    device.close()
    cases = [case for case in all_cases() if any(part in case.name for part in only)]
    results = await selftest(host.current().open_device, cases, on_note)
    kernels = [{**asdict(result), "ok": result.ok} for result in results]
    return {"adapter": adapter, "features": features, "kernels": kernels}


async def stats(on_event: OnEvent) -> dict[str, Any]:
    """Speeds of the last `generate`, memory and dispatches."""
    return _current().stats()


async def close(on_event: OnEvent) -> None:
    """Free the model."""
    while _loaded:
        await _loaded.pop().close()


def _info(llm: LLM) -> dict[str, Any]:
    info = llm.device.info
    adapter = {"name": info.name, "backend": info.backend, "software": info.software}
    versions = host.current().versions()
    return {
        "model": llm.name,
        "adapter": adapter,
        "context": llm.context,
        "load_s": llm.load_s,
        "versions": versions,
    }


def _current() -> LLM:
    if not _loaded:
        raise Closed("no model is loaded in this worker: load one first")
    return _loaded[0]


_METHODS: Mapping[str, Callable[..., Awaitable[Any]]] = {
    f.__name__: f for f in (load, reload, generate, chat, interrupt, cancel, bench, doctor, stats, close)
}
