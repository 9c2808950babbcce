"""The public face: `webllm.load` and the `LLM` it returns."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

from webllm import describe, display, host
from webllm.chat import Chat, Completions, TextCompletions, encode_prompt
from webllm.chat_template import ChatTemplate, encode_chat
from webllm.checkpoint import Checkpoint
from webllm.device import Device, Loaded, Progress, Seconds
from webllm.device.fit import memory_event
from webllm.engine import Engine
from webllm.errors import Closed, OutOfMemory, RequestError
from webllm.needs import needs, smaller_choices
from webllm.opening import open_checkpoint
from webllm.plan import Program
from webllm.program import Settings, build, check_kv, context_size, read_rope_factors
from webllm.quantize import check_quant, quantised
from webllm.report import GpuWeights, report_of
from webllm.sampling import GREEDY, Sampling
from webllm.selftest import open_tested
from webllm.tokenizer import Tokenizer
from webllm.tune import shapes_of, table_json, tuned
from webllm.turns import Turn
from webllm.weights import ERRORS

AHEAD = 3  # decode steps in flight: hides the readback, costs at most so many steps after a stop


@dataclass(frozen=True)
class Opened:
    """What `load` was asked for and found, so that `reload` can do it again."""

    name: str
    checkpoint: Checkpoint
    settings: Settings
    exact: bool
    adapter: str | None
    power_preference: str | None
    tune: bool | Mapping[str, Any] | None


class LLM:
    """A loaded model. Made by `webllm.load`."""

    def __init__(
        self,
        opened: Opened,
        device: Device,
        loaded: Loaded,
        weights: GpuWeights,
        seconds: Seconds,
        template: str | None,
    ) -> None:
        self.name = opened.name
        self.checkpoint = opened.checkpoint
        self.device = device
        self.weights = weights
        self.load_s = 0.0
        self._opened = opened
        self._seconds = seconds
        self._loaded = loaded
        self._template = template or opened.checkpoint.chat_template
        self._engine: Engine | None = Engine(
            device,
            loaded,
            context=opened.settings.context,
            chunk=loaded.program.plans["prefill"].rows,
            vocab_size=int(opened.checkpoint.config["vocab_size"]),
            ahead=1 if device.info.software else AHEAD,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back. Raises `BadModel` if the files hold no vocabulary."""
        return Tokenizer(self.checkpoint.vocabulary, host.current().encoder)

    @property
    def chat(self) -> Chat:
        """`llm.chat.completions.create(...)`."""
        return Chat(self._answers(partial(encode_chat, self._chat_template, self.tokenizer)))

    @property
    def completions(self) -> TextCompletions:
        """`llm.completions.create(...)`."""
        return TextCompletions(self._answers(partial(encode_prompt, self.tokenizer), goes_on=True))

    def _answers(self, encode: Callable[[Any], list[int]], goes_on: bool = False) -> Completions:
        stop_ids, defaults = self.checkpoint.stop_ids, self.checkpoint.generation
        return Completions(self.name, self.engine, self.tokenizer, encode, stop_ids, defaults, goes_on)

    @cached_property
    def _chat_template(self) -> ChatTemplate:
        t = self.tokenizer
        names = {"bos_token": t.bos_id, "eos_token": t.eos_id}
        texts = {name: t.vocabulary.tokens[i] for name, i in names.items() if i is not None}
        return ChatTemplate(self._template, t.special_tokens, **texts)

    @property
    def engine(self) -> Engine:
        """The inference loop. Raises `Closed` after `close()`."""
        if self._engine is None:
            raise Closed(f"{self.name} was closed; load it again with webllm.load({self.name!r})")
        return self._engine

    @property
    def program(self) -> Program:
        """What runs on the GPU: `webllm.describe.describe(llm.program)` tells it, dispatch by dispatch."""
        return self._loaded.program

    @property
    def context(self) -> int:
        """Positions that the KV cache holds."""
        return self.engine.context

    def generate(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int | None = None,
        ignore_eos: bool = False,
        sampling: Sampling = GREEDY,
    ) -> AsyncGenerator[int, None]:
        """Continue token ids; a stop id is included and ends the stream, unless `ignore_eos`.

        Each token is the likeliest one, unless `sampling` says otherwise.

        async for token in llm.generate(llm.tokenizer.encode("Once upon"), max_tokens=32): ...
        """
        if max_tokens is not None and max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1, got {max_tokens}")
        stop_ids = frozenset[int]() if ignore_eos else self.checkpoint.stop_ids
        self.engine.check(ids, sampling)
        return self.engine.generate(ids, max_tokens, stop_ids, sampling=sampling)

    async def logits(self, ids: Sequence[int]) -> Any:
        """Logits after the last of `ids`, float32[vocab]: a numpy array, or a memoryview where there is no numpy."""
        data = await self.engine.logits(ids)
        if sys.platform == "emscripten" and "numpy" not in sys.modules:
            return memoryview(data).cast("f")
        import numpy as np

        return np.frombuffer(data, np.float32)

    def interrupt(self) -> None:
        """End the running request after the token it is working on."""
        self.engine.interrupt()

    def stats(self) -> display.Stats:
        """Speed and seed of the last request, memory, dispatches, and shapes of workgroups (for `load(tune=)`).

        A dict, which reads well when it is printed.
        """
        program = self.program
        stats = {
            "model": self.name,
            "adapter": {"name": self.device.info.name, "software": self.device.info.software},
            "context": self.context,
            "cached_tokens": self.engine.cached_tokens,
            "load_s": self.load_s,
            "load": dict(self._seconds),
            "prefill_tokens_per_s": self.engine.last.prefill_tokens_per_s,
            "decode_tokens_per_s": self.engine.last.decode_tokens_per_s,
            "time_to_first_token_s": self.engine.last.prefill_s,
            "seed": self.engine.last.seed,
            "host_choices": self.engine.last.host_choices,
            "dispatches": {name: len(plan.dispatches) for name, plan in program.plans.items()},
            "bytes": program.bytes_by_kind(),
            "gpu_bytes": self.device.gpu_bytes,
            "tuning": table_json(self.device.info, shapes_of(program)),
        }
        return display.Stats(stats)

    async def reload(self, on_progress: Progress | Literal[False] | None = None) -> None:
        """Open the GPU anew, with the options of `load`, and load the same model again; needed after `DeviceLost`.

        What the user holds (`llm.chat`, `llm.tokenizer`) goes on working: the next request computes its whole
        prompt. A request that runs is ended first. Raises as `load` does; `reload` may then be tried again.
        """
        engine, started = self.engine, time.perf_counter()
        engine.interrupt()
        async with Turn(engine.turns):
            self.device.unload(self._loaded)
            self.device.close()
            with display.progress(on_progress) as listener:
                opened = await _open(self._opened, Seconds(), listener)
            self.device, self._loaded, self.weights, self._seconds = opened
            engine.attach(self.device, self._loaded)
        self.load_s = time.perf_counter() - started

    async def close(self) -> None:
        """Free the GPU memory and close the files. Safe to call twice."""
        if self._engine is None:
            return
        self._engine.interrupt()
        self._engine = None
        self.device.unload(self._loaded)
        self.device.close()
        for source in self.checkpoint.sources:
            await source.aclose()

    def __repr__(self) -> str:
        on = "closed" if self._engine is None else f"on {self.device.info.name}"
        return f"<webllm.LLM {self.name}, {on}>"

    def _repr_html_(self) -> str | None:
        """What a notebook shows; None, for `repr`, once it is closed."""
        if self._engine is None:
            return None
        info, last = self.device.info, self._engine.last
        adapter = f"{info.name} ({info.backend}{', a CPU that plays GPU' if info.software else ''})"
        speed = {"tokens_per_s": last.decode_tokens_per_s, "first_s": last.prefill_s} if last.completion_tokens else {}
        memory = describe.memory(self.program)
        return display.model_html(self.name, adapter, memory, self.device.gpu_bytes, self.context, speed)

    async def __aenter__(self) -> LLM:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def load(
    model: Any,
    *,
    context: int | None = None,
    kv: str = "f16",
    quant: str | None = None,
    exact: bool = False,
    adapter: str | None = None,
    power_preference: str | None = None,
    chat_template: str | None = None,
    tune: bool | Mapping[str, Any] | None = None,
    on_progress: Progress | Literal[False] | None = None,
) -> LLM:
    """Load a model onto the GPU.

    model: a short name ("smollm2-135m-instruct"), a path or URL of a .gguf file, in the browser also a
    picked `File`; or a folder in Hugging Face's layout (config.json and safetensors), as a path or as a URL that ends
    with a slash. context: positions that the KV cache may grow to, at most the model's own (default: that,
    up to 4096). kv: "f16", "f32" or "int8" cache; int8 is half as large as f16 and approximate. quant: "q4", "q4_sym",
    "q8", "f16" or "f32": what the GPU makes, while loading, of weights that are F32, F16 or BF16 in the file; None
    (default) leaves them so. `llm.weights.report()` tells what was lost. exact: forbid what is
    approximate (activations of 8 bits or halves, an int8 cache). adapter: part of the GPU's name. power_preference:
    "high-performance" (default) or "low-power", where there are several GPUs. chat_template: Jinja text in place of the
    file's. tune: True measures once which shapes of workgroups are fastest on this GPU for this model, in half
    a second and what compiling takes, and keeps it for later loads; None (default) uses what was kept, False nothing; a
    table is what `llm.stats()["tuning"]` gave elsewhere. on_progress: called with
    {"phase", "loaded", "total", "tensors", "seconds"}; first comes the phase "memory", whose total is what
    the model will take on the GPU, and "at_full_context" what it may grow to, of which "weights" and "kv"; "download"
    are the bytes of its files. What the GPU cannot hold is refused with smaller choices: context, quant, model. By
    default a notebook and a terminal show bars, `False` shows none.

    Raises a `ModelError`, `FetchError`, `DeviceError` or `RequestError`; then nothing stays allocated.
    Without a GPU a CPU plays one, and there is a `SoftwareAdapterWarning`.

        llm = await webllm.load("smollm2-135m-instruct")
    """
    started, seconds = time.perf_counter(), Seconds()
    check_kv(kv, exact)
    check_quant(quant)
    with display.progress(on_progress) as listener:
        checkpoint = await open_checkpoint(model, listener, seconds)
        try:
            settings = Settings(context_size(checkpoint, context), kv)
            checkpoint = quantised(checkpoint, quant)
            opened = Opened(str(model), checkpoint, settings, exact, adapter, power_preference, tune)
            device, loaded, weights, seconds = await _open(opened, seconds, listener)
        except BaseException:
            for source in checkpoint.sources:
                await source.aclose()
            raise
    llm = LLM(opened, device, loaded, weights, seconds, chat_template)
    llm.load_s = time.perf_counter() - started
    return llm


async def _open(
    opened: Opened, seconds: Seconds, on_progress: Progress | None
) -> tuple[Device, Loaded, GpuWeights, Seconds]:
    """A device with the model on it, what became of the weights, and how long parts took. A failure leaves nothing."""

    async def open_device() -> Device:
        with seconds.of("device"):
            return await host.current().open_device(opened.adapter, opened.power_preference)

    with seconds.of("selftest"):
        device, limits = await open_tested(open_device, exact=opened.exact)
    seconds["selftest"] -= seconds["device"]
    try:
        with seconds.of("tuning"):
            limits = await tuned(device, limits, opened.checkpoint, opened.settings, opened.tune)
        with seconds.of("program"):
            factors = await read_rope_factors(opened.checkpoint)
            program = build(opened.checkpoint, opened.settings, limits, rope_factors=factors)
        if on_progress:
            told = memory_event(program, sum(seconds.values()))
            on_progress({**told, **needs(program, opened.checkpoint), "context": program.context})
        with _smaller_named(program, opened.checkpoint):
            loaded = await device.load(program, opened.checkpoint.sources, on_progress)
        slots = sum(slots.count for slots in program.errors.values())
        errors = await device.read(loaded, ERRORS, 8 * slots) if slots else b""
    except BaseException:
        device.close()
        raise
    weights = GpuWeights(report_of(opened.checkpoint, program.errors, errors))
    return device, loaded, weights, Seconds({**seconds, **loaded.seconds})


@contextmanager
def _smaller_named(program: Program, checkpoint: Checkpoint) -> Iterator[None]:
    """What the GPU cannot hold is refused with what it could."""
    try:
        yield
    except OutOfMemory as error:
        message = f"{error}. {checkpoint.name}: {smaller_choices(program, checkpoint)}"
        raise OutOfMemory(message, kernel=error.kernel, sizes=error.sizes) from error
