"""Scratch buffers share memory exactly where nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from webllm.memory import lifetimes, share_scratch
from webllm.plan import Buffer, Dispatch, Plan, Program

Values = dict[int, float]


def add(a: int, b: int, y: int) -> Dispatch:
    """y = a / 2 + b + 1: the order of operands and the number of steps both show in the result."""
    return Dispatch("add", (("a", a), ("b", b), ("y", y)), (1, 1, 1))


def chain(length: int) -> Program:
    """x -> ... -> y through `length` additions of w, each result in scratch of its own."""
    buffers = [Buffer("x", 16, "state"), Buffer("w", 16, "weight"), Buffer("y", 16, "state")]
    buffers += [Buffer(f"scratch.{i}", 16, "scratch") for i in range(length - 1)]
    path = [0, *range(3, 3 + length - 1), 2]
    steps = (add(a, 1, y) for a, y in pairwise(path))
    return Program(tuple(buffers), {"step": Plan(tuple(steps), result=2)})


def run(program: Program, plan: Plan) -> Values:
    """What a device would compute: one number a buffer, scratch without a value at first."""
    values = {i: math.nan if b.kind == "scratch" else float(i) for i, b in enumerate(program.buffers)}
    for dispatch in plan.dispatches:
        at = dict(dispatch.buffers)
        values[at["y"]] = values[at["a"]] / 2 + values[at["b"]] + 1
    return values


def visible(program: Program, name: str) -> Mapping[str, float]:
    """What outlives a plan: its result, and all that is no scratch."""
    plan = program.plans[name]
    values = run(program, plan)
    kept = {b.name: values[i] for i, b in enumerate(program.buffers) if b.kind != "scratch"}
    return kept if plan.result is None else kept | {"the result": values[plan.result]}


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """One or two plans over common state; they read what has a value, and write new scratch, old scratch or state."""
    buffers = [Buffer("w", 16, "weight"), Buffer("s", 16, "state"), Buffer("t", 32, "state")]
    plans = {}
    for name in draw(st.sampled_from([("decode",), ("decode", "prefill")])):
        ready = [0, 1, 2]
        steps = []
        for _ in range(draw(st.integers(1, 12))):
            a, b = draw(st.sampled_from(ready)), draw(st.sampled_from(ready))
            if draw(st.booleans()):
                y = len(buffers)
                buffers.append(Buffer(f"scratch.{y}", draw(st.integers(1, 8)) * 4, "scratch"))
                ready.append(y)
            else:
                y = draw(st.sampled_from(ready[1:]))
            steps.append(add(a, b, y))
        plans[name] = Plan(tuple(steps), draw(st.none() | st.sampled_from(ready)))
    return Program(tuple(buffers), plans)


def moves(before: Plan, after: Plan) -> dict[int, int]:
    """Old buffer number -> new one, from what the dispatches name."""
    pairs = zip(before.dispatches, after.dispatches, strict=True)
    return {old: new for b, a in pairs for (_, old), (_, new) in zip(b.buffers, a.buffers, strict=True)}


def test_a_long_chain_needs_two_intermediates() -> None:
    shared = share_scratch(chain(200))
    assert len(shared.buffers) == 5  # x, w, y and two that take turns


def test_a_long_chain_computes_the_same_with_two_intermediates() -> None:
    assert visible(share_scratch(chain(200)), "step") == visible(chain(200), "step")


def test_input_and_output_of_one_dispatch_never_share() -> None:
    """The input's last use is the output's first: WebGPU forbids one buffer under both bindings."""
    shared = share_scratch(chain(3))
    assert all(len({number for _, number in d.buffers}) == 3 for d in shared.plans["step"].dispatches)


def test_a_slot_is_as_large_as_the_largest_that_lies_in_it() -> None:
    small, large = Buffer("small", 8, "scratch"), Buffer("large", 80, "scratch")
    buffers = (Buffer("w", 16, "weight"), Buffer("s", 16, "state"), small, large)
    plan = Plan((add(0, 0, 2), add(2, 0, 1), add(0, 0, 3), add(3, 0, 1)))
    shared = share_scratch(Program(buffers, {"step": plan}))
    assert [b.size for b in shared.buffers if b.kind == "scratch"] == [80]


def test_plans_use_the_same_slots() -> None:
    """They never run at the same time."""
    buffers = (Buffer("w", 16, "weight"), Buffer("a", 16, "scratch"), Buffer("b", 16, "scratch"))
    plans = {"decode": Plan((add(0, 0, 1),)), "prefill": Plan((add(0, 0, 2),))}
    shared = share_scratch(Program(buffers, plans))
    assert shared.plans["decode"] == shared.plans["prefill"]


def test_a_scratch_buffer_that_is_read_back_lives_to_the_end() -> None:
    """It is copied after the last dispatch, so nothing later may lie over it."""
    buffers = (Buffer("w", 16, "weight"), Buffer("s", 16, "state"), *(Buffer(f"{i}", 16, "scratch") for i in range(2)))
    program = Program(buffers, {"step": Plan((add(0, 0, 2), add(0, 1, 3), add(3, 0, 1)), result=2)})
    assert visible(share_scratch(program), "step") == visible(program, "step")


def test_a_life_goes_from_the_first_dispatch_that_names_a_buffer_to_the_last() -> None:
    plan = Plan((add(0, 1, 2), add(2, 1, 3), add(3, 1, 2)))
    assert lifetimes(plan) == {0: (0, 0), 1: (0, 2), 2: (0, 2), 3: (1, 2)}


@given(programs())
def test_sharing_never_changes_what_a_plan_computes(program: Program) -> None:
    shared = share_scratch(program)
    for name in program.plans:
        assert visible(shared, name) == visible(program, name)


@given(programs())
def test_no_two_buffers_that_live_at_the_same_time_share(program: Program) -> None:
    shared = share_scratch(program)
    for name, plan in program.plans.items():
        number, lives = moves(plan, shared.plans[name]), lifetimes(plan)
        for a, b in combinations(lives, 2):
            apart = lives[a][1] < lives[b][0] or lives[b][1] < lives[a][0]
            assert number[a] != number[b] or apart


@given(programs())
def test_sharing_keeps_every_other_buffer_and_never_takes_more_memory(program: Program) -> None:
    shared = share_scratch(program)
    before, after = program.bytes_by_kind(), shared.bytes_by_kind()
    assert after.pop("scratch", 0) <= before.pop("scratch", 0) and after == before


@given(programs())
def test_a_shared_buffer_is_large_enough_for_all_that_lie_in_it(program: Program) -> None:
    shared = share_scratch(program)
    for name, plan in program.plans.items():
        for old, new in moves(plan, shared.plans[name]).items():
            assert shared.buffers[new].size >= program.buffers[old].size
