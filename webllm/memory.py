"""Scratch memory: which intermediates may share a buffer. A pure function from program to program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from webllm.plan import Buffer, Plan, Program, renumber, renumber_upload


def share_scratch(program: Program) -> Program:
    """Give scratch buffers that never live together the same memory.

    A buffer lives from the first dispatch that names it to the last. Two that live in the same
    dispatch never share, so no dispatch sees one buffer under two bindings (WebGPU forbids it where
    one is writable). Plans run one after another, so their slots are shared as well.
    """
    slots: list[int] = []  # bytes of each slot
    slot_of: dict[int, int] = {}
    for plan in program.plans.values():
        slot_of |= _assign(plan, program.buffers, slots)
    kept = [i for i, buffer in enumerate(program.buffers) if buffer.kind != "scratch"]
    number = {old: new for new, old in enumerate(kept)}
    number |= {old: len(kept) + slot for old, slot in slot_of.items()}
    buffers = [program.buffers[i] for i in kept]
    buffers += [Buffer(f"scratch.{i}", size, "scratch") for i, size in enumerate(slots)]
    return replace(
        program,
        buffers=tuple(buffers),
        plans={name: renumber(plan, number) for name, plan in program.plans.items()},
        uploads=tuple(renumber_upload(upload, number) for upload in program.uploads),
    )


def lifetimes(plan: Plan) -> dict[int, tuple[int, int]]:
    """Buffer number -> (first, last) dispatch that names it. The result is read after them all."""
    lives: dict[int, tuple[int, int]] = {}
    for i, dispatch in enumerate(plan.dispatches):
        for _, buffer in dispatch.buffers:
            lives[buffer] = (lives.get(buffer, (i, i))[0], i)
    if plan.result in lives:
        lives[plan.result] = (lives[plan.result][0], len(plan.dispatches))
    return lives


def _assign(plan: Plan, buffers: tuple[Buffer, ...], slots: list[int]) -> Mapping[int, int]:
    """Put each scratch buffer of `plan` in the best free slot, adding or growing slots in place."""
    lives = {b: life for b, life in lifetimes(plan).items() if buffers[b].kind == "scratch"}
    busy_until = [-1] * len(slots)
    slot_of: dict[int, int] = {}
    for buffer, (first, last) in sorted(lives.items(), key=lambda item: item[1]):
        size = buffers[buffer].size
        free = [s for s, until in enumerate(busy_until) if until < first]
        if free:
            # The smallest that is big enough, otherwise the biggest, which then grows.
            slot = min(free, key=lambda s: (slots[s] < size, abs(slots[s] - size)))
        else:
            slot = len(slots)
            slots.append(0)
            busy_until.append(-1)
        slots[slot] = max(slots[slot], size)
        busy_until[slot] = last
        slot_of[buffer] = slot
    return slot_of
