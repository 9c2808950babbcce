"""From a program to what a device needs: WGSL text, pipelines and bindings by number.

The result is plain data (dicts, lists, numbers and strings), the same for both devices; in the
browser it crosses to JavaScript once, as JSON. No model and no GPU is known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from webllm import kernels
from webllm.plan import Ceil, Dispatch, Plan, Program, Size, Upload


@dataclass
class Linked:
    """modules: WGSL texts. pipelines: {"label", "module", "constants", "bindings": [[number, access], ...]}.

    A dispatch is {"pipeline", "buffers": [[number, buffer], ...], "grid": [size, size, size]}, a size
    a number or ["rows" | "length", divisor].
    """

    buffers: list[dict[str, Any]]
    modules: list[str] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: list[dict[str, Any]] = field(default_factory=list)


def link(program: Program) -> Linked:
    """Resolve kernel names, variants and binding names."""
    linked = Linked([{"name": b.name, "size": b.size, "kind": b.kind} for b in program.buffers])
    pipelines: dict[tuple[Any, ...], int] = {}
    linked.uploads = [_upload(linked, pipelines, upload) for upload in program.uploads]
    linked.plans = {name: _plan(linked, pipelines, plan) for name, plan in program.plans.items()}
    return linked


def _plan(linked: Linked, pipelines: dict[tuple[Any, ...], int], plan: Plan) -> dict[str, Any]:
    return {
        "dispatches": [_dispatch(linked, pipelines, dispatch) for dispatch in plan.dispatches],
        "result": plan.result,
    }


def _upload(linked: Linked, pipelines: dict[tuple[Any, ...], int], upload: Upload) -> dict[str, Any]:
    return {
        "source": upload.source,
        "offset": upload.offset,
        "rows": upload.rows,
        "rowBytes": upload.row_bytes,
        "rowsPerPiece": upload.rows_per_piece,
        "params": list(upload.params),
        "dispatch": _dispatch(linked, pipelines, upload.dispatch),
    }


def _dispatch(linked: Linked, pipelines: dict[tuple[Any, ...], int], dispatch: Dispatch) -> dict[str, Any]:
    module = kernels.module(dispatch.kernel, dispatch.variants)
    unknown = set(module.bindings).symmetric_difference(name for name, _ in dispatch.buffers)
    if unknown:
        raise ValueError(
            f"{dispatch.kernel}{dict(dispatch.variants)}: wants bindings {sorted(module.bindings)}, "
            f"got {sorted(name for name, _ in dispatch.buffers)}"
        )
    return {
        "pipeline": _pipeline(linked, pipelines, dispatch, module),
        "buffers": [[module.bindings[name].number, buffer] for name, buffer in dispatch.buffers],
        "grid": [_size(size) for size in dispatch.grid],
    }


def _pipeline(linked: Linked, pipelines: dict[tuple[Any, ...], int], dispatch: Dispatch, module: kernels.Module) -> int:
    key = (dispatch.kernel, dispatch.variants, dispatch.constants)
    if key not in pipelines:
        if module.code not in linked.modules:
            linked.modules.append(module.code)
        linked.pipelines.append(
            {
                "label": " ".join([dispatch.kernel, *(choice for _, choice in dispatch.variants)]),
                "module": linked.modules.index(module.code),
                "constants": dict(dispatch.constants),
                "bindings": [[b.number, b.access] for b in module.bindings.values()],
            }
        )
        pipelines[key] = len(linked.pipelines) - 1
    return pipelines[key]


def _size(size: Size) -> int | list[Any]:
    return [size.value, size.divisor] if isinstance(size, Ceil) else size
