"""From a program to what a device needs: kernels found, bindings by number, pipelines once."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from webllm import kernels
from webllm.limits import Limits
from webllm.link import Linked, link, size_of
from webllm.plan import Buffer, Ceil, Dispatch, Plan, Program, Size, Split, Upload
from webllm.program import Settings, build
from webllm.synthetic import QUANTS, checkpoint_from_config

BUFFERS = tuple(Buffer(name, 1024, "state") for name in ("x", "weight", "y", "params"))
CONFIG: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 301,
}


# Heads as models have them, up to the largest that are allowed: 8 heads share one of K and V, 256 numbers a head.
HEADS = [(4, 2, 24), (9, 3, 64), (14, 2, 64), (32, 8, 128), (16, 1, 128), (8, 1, 256), (3, 3, 8)]
VECTORS = {"vec2<f32>": 8, "vec2<u32>": 8, "vec3<f32>": 16, "vec4<f32>": 16, "vec4<u32>": 16, "vec4<f16>": 8}
SIZES = {"f32": 4, "u32": 4, "mat2x4<f32>": 32, **VECTORS}


def norm(**constants: float) -> Dispatch:
    buffers = (("y", 2), ("x", 0), ("weight", 1))
    numbers = {"COLS": 64, "EPS": 1e-5, **constants}
    return Dispatch(
        "rms_norm", buffers, (1, Ceil("rows", 4), 1), tuple(numbers.items()), (("reduce", "plain"), ("half", "f32"))
    )


def linked(*dispatches: Dispatch, result: int | None = None) -> Linked:
    return link(Program(BUFFERS, {"step": Plan(dispatches, result)}))


def test_bindings_get_the_numbers_of_the_kernels_header() -> None:
    (dispatch,) = linked(norm()).plans["step"]["dispatches"]
    assert sorted(dispatch["buffers"]) == [[0, 0], [1, 1], [4, 2]]


def test_a_grid_of_the_step_becomes_a_name_and_a_divisor() -> None:
    (dispatch,) = linked(norm()).plans["step"]["dispatches"]
    assert dispatch["grid"] == [1, ["rows", 4], 1]


@pytest.mark.parametrize("size", [3, Ceil("rows", 4), Ceil("length", 128), Split(64, 3, 24, 5, 2)])
def test_a_size_comes_out_of_a_linked_grid_as_it_went_in(size: Size) -> None:
    buffers = (("y", 2), ("x", 0), ("weight", 1))
    one = Dispatch("rms_norm", buffers, (size, 1, 1), (), (("reduce", "plain"), ("half", "f32")))
    (dispatch,) = linked(one).plans["step"]["dispatches"]
    assert size_of(json.loads(json.dumps(dispatch["grid"]))[0]) == size


def test_equal_dispatches_share_a_pipeline() -> None:
    made = linked(norm(), norm(), norm())
    assert len(made.pipelines) == len(made.modules) == 1


def test_other_constants_make_another_pipeline_of_the_same_module() -> None:
    made = linked(norm(), norm(COLS=128))
    assert [p["constants"]["COLS"] for p in made.pipelines] == [64, 128]
    assert len(made.modules) == 1 and {p["module"] for p in made.pipelines} == {0}


def test_other_variants_make_another_module() -> None:
    uploads = []
    for element in ("f32", "bf16"):
        buffers = (("raw", 0), ("params", 3), ("data", 2))
        dispatch = Dispatch("import_vector", buffers, (Ceil("rows", 64), 1, 1), (), (("element", element),))
        uploads.append(Upload(0, 0, 8, 4, (), dispatch))
    made = link(Program(BUFFERS, {}, tuple(uploads)))
    assert [p["label"] for p in made.pipelines] == ["import_vector f32", "import_vector bf16"]
    assert len(made.modules) == 2


def test_a_pipeline_says_which_bindings_it_writes() -> None:
    (pipeline,) = linked(norm()).pipelines
    assert sorted(pipeline["bindings"]) == [[0, "read"], [1, "read"], [4, "read_write"]]


def test_a_binding_that_is_missing_or_unknown_is_refused_by_name() -> None:
    buffers = (("x", 0), ("scale", 1), ("y", 2))
    wrong = Dispatch("rms_norm", buffers, (1, 1, 1), (), (("reduce", "plain"), ("half", "f32")))
    with pytest.raises(ValueError, match=r"rms_norm.*wants bindings \['weight', 'x', 'y'\], got \['scale', 'x', 'y'\]"):
        linked(wrong)


def test_a_variant_that_is_missing_is_refused() -> None:
    """Without one, the slot has no file of its own name."""
    with pytest.raises(KeyError, match="lib/element"):
        linked(Dispatch("import_vector", (("raw", 0), ("params", 3), ("data", 2)), (1, 1, 1)))


def test_the_result_is_the_buffer_that_is_read_back() -> None:
    assert linked(norm(), result=2).plans["step"]["result"] == 2
    assert linked(norm()).plans["step"]["result"] is None


@pytest.fixture(
    scope="module",
    params=[(kind, quant, kv) for kind in ("llama", "qwen2") for quant in QUANTS for kv in ("f16", "f32", "int8")],
)
def whole(request: pytest.FixtureRequest) -> tuple[Program, Linked]:
    """Small models of every architecture and quantisation, with either cache."""
    kind, quant, kv = request.param
    checkpoint = checkpoint_from_config({**CONFIG, "model_type": kind}, quant)
    program = build(checkpoint, Settings(256, kv), Limits())
    return program, link(program)


def test_a_linked_program_crosses_to_javascript_as_json(whole: tuple[Program, Linked]) -> None:
    assert json.loads(json.dumps(vars(whole[1]))) == vars(whole[1])


def test_every_constant_is_an_override_and_every_override_without_a_default_is_given(
    whole: tuple[Program, Linked],
) -> None:
    """WebGPU refuses a pipeline otherwise."""
    for pipeline in whole[1].pipelines:
        code = re.sub(r"//.*", "", whole[1].modules[pipeline["module"]])
        overrides = dict(re.findall(r"^override (\w+): \w+( = [^;]+)?;", code, re.M))
        required = {name for name, default in overrides.items() if not default}
        assert required <= pipeline["constants"].keys() <= overrides.keys(), pipeline["label"]


def test_every_dispatch_binds_exactly_what_its_pipeline_declares(whole: tuple[Program, Linked]) -> None:
    made = whole[1]
    dispatches = [d for plan in made.plans.values() for d in plan["dispatches"]] + [u["dispatch"] for u in made.uploads]
    for dispatch in dispatches:
        declared = [number for number, _ in made.pipelines[dispatch["pipeline"]]["bindings"]]
        assert sorted(number for number, _ in dispatch["buffers"]) == sorted(declared)


def workgroup_bytes(made: Linked, pipeline: dict[str, Any]) -> int:
    """What a pipeline's `var<workgroup>` declarations take together: arrays, and single words."""
    code = re.sub(r"//.*", "", made.modules[pipeline["module"]])
    sizes = SIZES | {name: SIZES[kind] for name, kind in re.findall(r"^alias (\w+) = (\S+);", code, re.M)}
    structs = re.findall(r"^struct (\w+) \{((?:\s+\w+: [fu]32,)+)\s+\}", code, re.M)
    sizes |= {name: 4 * members.count(":") for name, members in structs}
    fixed = r"^(?:override (?=\w+: u32)|const )(\w+)(?:: u32)? = (\d+)"
    defaults = {name: int(value) for name, value in re.findall(fixed, code, re.M)}
    numbers = {**defaults, **pipeline["constants"]}
    arrays = re.findall(r"var<workgroup> \w+: array<(.+), (\w+)>;", code)
    words = re.findall(r"var<workgroup> \w+: u32;", code)
    assert len(arrays) + len(words) == code.count("var<workgroup>")
    return 4 * len(words) + sum(
        sizes[kind] * (int(count) if count.isdigit() else numbers[count]) for kind, count in arrays
    )


def workgroup_threads(made: Linked, pipeline: dict[str, Any]) -> int:
    size = re.search(r"@workgroup_size\((\w+)\)", made.modules[pipeline["module"]])
    assert size
    return int(size[1]) if size[1].isdigit() else int(pipeline["constants"][size[1]])


@pytest.mark.parametrize("kv", ["f16", "f32", "int8"])
@pytest.mark.parametrize("heads", HEADS)
def test_a_device_with_default_limits_can_run_every_kernel(heads: tuple[int, int, int], kv: str) -> None:
    """16 KiB of workgroup memory and 256 threads; not every compiler counts."""
    count, kv_heads, dim = heads
    shape = {"num_attention_heads": count, "num_key_value_heads": kv_heads, "head_dim": dim, "model_type": "llama"}
    made = link(build(checkpoint_from_config({**CONFIG, **shape}), Settings(4096, kv), Limits()))
    for pipeline in made.pipelines:
        assert workgroup_bytes(made, pipeline) <= 16 << 10, pipeline
        assert workgroup_threads(made, pipeline) <= 256, pipeline


def test_few_pipelines_serve_many_dispatches(whole: tuple[Program, Linked]) -> None:
    """Layers are alike: more of them cost no more compiling."""
    program = whole[0]
    deeper = build(
        checkpoint_from_config({**CONFIG, "model_type": "llama", "num_hidden_layers": 9}), Settings(256), Limits()
    )
    shallow = build(checkpoint_from_config({**CONFIG, "model_type": "llama"}), Settings(256), Limits())
    assert len(link(deeper).pipelines) == len(link(shallow).pipelines)
    assert len(whole[1].pipelines) < sum(len(plan.dispatches) for plan in program.plans.values())


def test_a_label_names_a_kernel_that_exists(whole: tuple[Program, Linked]) -> None:
    assert {pipeline["label"].split()[0] for pipeline in whole[1].pipelines} <= set(kernels.names())
