"""What holds for the program of any model: configurations, formats, limits and contexts at random. No GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webllm import kernels, program
from webllm.errors import WebLLMError
from webllm.limits import Limits
from webllm.link import link
from webllm.ops import PAGE, SHORT
from webllm.plan import Ceil, Dispatch, Plan, Program
from webllm.program import Settings, build
from webllm.sampling import RECORD_BYTES
from webllm.synthetic import QUANTS, checkpoint_from_config

few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
many = settings(few, max_examples=3000)


class Case(NamedTuple):
    config: dict[str, Any]
    quant: str
    limits: Limits
    settings: Settings

    def build(self) -> Program:
        return build(checkpoint_from_config(self.config, self.quant), self.settings, self.limits)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A model that the architectures allow, as large as a test can wait for."""
    per_kv, kv_heads = draw(st.sampled_from([1, 2, 3, 4, 7, 9, 16])), draw(st.sampled_from([1, 2, 3, 8]))
    config = {
        "model_type": draw(st.sampled_from(["llama", "qwen2"])),
        "hidden_size": 4 * draw(st.integers(1, 200) | st.just(1024)),
        "intermediate_size": 4 * draw(st.integers(1, 400)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": per_kv * kv_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 8 * draw(st.integers(1, 32)),
        "vocab_size": draw(st.integers(1, 600) | st.sampled_from([65_536, 151_936])),
        "tie_word_embeddings": draw(st.booleans()),
        "max_position_embeddings": 1 << 20,
    }
    limits = Limits(
        storage_binding=draw(st.sampled_from([128 << 20, 1 << 30, 16 << 20])),
        workgroup_storage=draw(st.sampled_from([16 << 10, 2 << 10, 48 << 10])),
        threads=draw(st.sampled_from([16, 64, 256, 384, 1024])),
        workgroups=draw(st.sampled_from([1, 256])),
        tiles=draw(st.sampled_from([1, 64, 1024])),
        small=draw(st.booleans()),
        int8=draw(st.booleans()),
    )
    chosen = Settings(
        context=draw(st.integers(1, 3000)),
        kv=draw(st.sampled_from(["f16", "f32", "int8"])),
        chunk=draw(st.sampled_from([1, 64, 100, 1024])),
        share=draw(st.booleans()),
    )
    return Case(config, draw(st.sampled_from(sorted(QUANTS))), limits, chosen)


def plan_dispatches(program: Program) -> Iterator[tuple[Plan, Dispatch, Mapping[str, kernels.Binding]]]:
    for plan in program.plans.values():
        for dispatch in plan.dispatches:
            yield plan, dispatch, kernels.module(dispatch.kernel, dispatch.variants).bindings


def check_bindings(made: Program) -> None:
    """Every kernel gets exactly the buffers that it declares, no writable one twice, and no more than 8."""
    link(made)  # raises for a binding too few or too many
    for _, dispatch, bindings in plan_dispatches(made):
        numbers = [number for _, number in dispatch.buffers]
        written = [number for name, number in dispatch.buffers if bindings[name].access == "read_write"]
        assert all(numbers.count(number) == 1 for number in written), dispatch
        assert len(numbers) <= 8 and all(0 <= number < len(made.buffers) for number in numbers)


def check_grids(made: Program, context: int) -> None:
    """Every step that the engine may ask for stays within the largest grid and starts something."""
    for name, plan in made.plans.items():
        lengths = {1, min(context, SHORT) if name == "decode" else context}
        for dispatch in plan.dispatches:
            for rows in {1, plan.rows}:
                for length in lengths:
                    sizes = [size if isinstance(size, int) else size(rows, length) for size in dispatch.grid]
                    least = 0 if dispatch.kernel == "sum_parts" else 1  # there may be one part only
                    assert all(least <= size <= 65535 for size in sizes), dispatch
            shape = dict(dispatch.constants)
            assert shape.get("PER", 1) <= shape.get("WG", 256), dispatch  # otherwise its threads would never end
    for upload in made.uploads:
        sizes = [size(upload.rows_per_piece, 0) if isinstance(size, Ceil) else size for size in upload.dispatch.grid]
        assert all(1 <= size <= 65535 for size in sizes), upload


def check_sizes(made: Program) -> None:
    """Every buffer holds what the kernel's header says that it reads or writes there."""
    for plan, dispatch, bindings in plan_dispatches(made):
        for name, number in dispatch.buffers:
            needs = max(bytes_needed(bindings[name], dispatch, rows) for rows in {1, plan.rows // 2 + 1, plan.rows})
            buffer = made.buffers[number]
            assert max(buffer.size, buffer.most or 0) >= needs, (dispatch.kernel, name, buffer, needs)  # caches grow


def check_bytes(made: Program) -> None:
    """Kinds add up, every buffer is whole words, staging holds a piece, and every buffer is used or written."""
    assert sum(made.bytes_by_kind().values()) == sum(buffer.size for buffer in made.buffers)
    assert all(buffer.size > 0 and buffer.size % 4 == 0 for buffer in made.buffers)
    raw = made.buffers[made.index("raw")].size
    assert all(upload.rows_per_piece * upload.row_bytes <= raw for upload in made.uploads)
    named = {number for upload in made.uploads for _, number in upload.dispatch.buffers}
    named |= {number for _, dispatch, _ in plan_dispatches(made) for _, number in dispatch.buffers}
    assert named | {made.index("raw"), made.index("params")} == set(range(len(made.buffers)))


CANDIDATES, BINS = 1024, 2048  # of kernels_wgsl/lib/sampling.wgsl
_ELEMENT = {
    **{"f32": 4, "u32": 4, "atomic<u32>": 4, "vec2<f32>": 8, "vec2<u32>": 8, "vec4<f32>": 16, "vec4<u32>": 16},
    **{"Tally": 16, "Sampling": RECORD_BYTES, "Candidates": 8 + 8 * CANDIDATES},
}


def bytes_needed(binding: kernels.Binding, dispatch: Dispatch, rows: int) -> int:
    """From a header's `array<vec4<f32>> [rows][COLS / 4]` and the constants of the dispatch."""
    constants = {name: int(value) for name, value in dispatch.constants}
    constants["KV_SCALES"] = int(("kv", "int8") in dispatch.variants)
    if "HEAD_QUADS" in constants:  # a matvec whose input is that many splits of heads
        constants["HEADS"] = constants["COLS"] // 4 // constants["HEAD_QUADS"]
    if binding.type == "Step":
        return 16 + 16 * rows
    element = binding.type.removeprefix("array<").removesuffix(">")
    size = _UNIT[dict(dispatch.variants)["kv"]] if element == "KvUnit" else _ELEMENT[element]
    for dim in re.findall(r"\[(.*?)\]", binding.shape):
        size *= parts(dispatch, rows) if dim == "z" else dimension(dim, dispatch.kernel, constants, rows)
    return size


def parts(dispatch: Dispatch, rows: int) -> int:
    """Into how many a product is cut; one alone is no part."""
    z = dispatch.grid[0 if dispatch.kernel == "sum_parts" else 2]
    count = z if isinstance(z, int) else z(rows, 0)
    return count if count > 1 else 0


_UNIT = {"f16": 16, "f32": 32, "int8": 8}  # bytes of eight cached numbers


def dimension(dim: str, kernel: str, constants: Mapping[str, int], rows: int) -> int:
    glu = 2 if kernel == "matvec_glu" else 1
    words: dict[str, Any] = {
        "rows": rows,
        "tiles of 16 rows": glu * -(-constants.get("ROWS", 0) // 16),
        "rows of the whole matrix": constants.get("OFFSET", 0) + constants.get("ROWS", 0),
        "pages": constants.get("MAX_PAGES"),
        "sequences": 1,
        "BINS": BINS,
        "256 low, then high positions": 256 + -(-constants.get("MAX_PAGES", 0) * PAGE // 256),
        "HEAD_DIM / 8 + KV_SCALES": constants.get("HEAD_DIM", 0) // 8 + constants.get("KV_SCALES", 0),
        "HEADS + 2 KV_HEADS": constants.get("HEADS", 0) + 2 * constants.get("KV_HEADS", 0),
    }
    values = {**constants, **words}

    def number(word: str) -> int:
        if word not in values and not word.isdecimal():
            pytest.fail(f"{kernel}'s header has a dimension that this test does not know: [{dim}]")
        return int(values.get(word, word))

    if dim.startswith("rows up to "):  # whole tiles of so many
        tile = number(dim.split()[-1])
        return -(-rows // tile) * tile
    whole, _, divisor = (dim, "", "") if dim in words else dim.partition(" / ")
    return -(-number(whole) // number(divisor or "1"))


def check(made: Program, context: int) -> None:
    check_bindings(made)
    check_grids(made, context)
    check_sizes(made)
    check_bytes(made)


@few
@given(cases())
def test_any_program_fits_its_kernels_and_webgpu(case: Case) -> None:
    check(case.build(), case.settings.context)


@pytest.mark.slow
@many
@given(cases())
def test_very_many_programs_fit_their_kernels_and_webgpu(case: Case) -> None:
    check(case.build(), case.settings.context)


# Numbers as a file or a config.json may hold them: often small, sometimes absurd.
numbers = st.integers(-4, 300) | st.sampled_from([0, 1 << 16, 1 << 31, 1 << 40, 10**30, -1])
values = numbers | st.floats() | st.none() | st.text(max_size=3) | st.booleans() | st.just([1]) | st.just({})
KEYS = [
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"),
    *("rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings", "attention_bias"),
]


@settings(few, max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3), st.sampled_from([1, 3]))
def test_any_configuration_makes_a_program_or_an_error_with_a_name(changes: dict[str, Any], layers: int) -> None:
    config = {
        **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": layers},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, **changes},
    }
    try:
        made = build(checkpoint_from_config(config), Settings(64), Limits())
    except WebLLMError:
        return
    check_bindings(made)
    check_grids(made, 64)


def test_every_plan_of_a_long_context_is_looked_at() -> None:
    """The properties above would hold for a program without plans, too."""
    config = {
        **{"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "vocab_size": 100},
    }
    made = build(checkpoint_from_config(config), Settings(SHORT + 1), Limits())
    assert set(made.plans) >= {"decode", "prefill", program.decode_plan(SHORT + 1)}
    assert all(plan.dispatches for plan in made.plans.values())
