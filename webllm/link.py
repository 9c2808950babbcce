"""From a program to what a device needs: WGSL text, pipelines and bindings by number.

The result is plain data (dicts, lists, numbers and strings), the same for both devices; in the
browser it crosses to JavaScript once, as JSON. No model and no GPU is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webllm import kernels
from webllm.plan import Ceil, Dispatch, Plan, Program, Size, Split, Upload

# What a module begins with where it needs a feature. Not every compiler knows every directive. Tint cannot tell that a
# value is the same for all of a subgroup, which matrices want, so it is told not to look.
ENABLES = {
    "chromium-experimental-subgroup-matrix": "enable chromium_experimental_subgroup_matrix;\n"
    "diagnostic(off, chromium.subgroup_matrix_uniformity);",
    "shader-f16": "enable f16;",
    "subgroups": "enable subgroups;",
}


@dataclass
class Linked:
    """modules: WGSL texts. pipelines: {"label", "module", "constants", "threads", "bindings": [[number, access], ...]}.

    A dispatch is {"pipeline", "buffers": [[number, buffer], ...], "grid": [size, size, size]}, a size
    a number, ["rows" | "length", divisor] for a `Ceil`, or ["split", tile, tiles, wanted, most, least] for a `Split`.
    """

    buffers: list[dict[str, Any]]
    modules: list[str] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: list[dict[str, Any]] = field(default_factory=list)


def link(program: Program, enables: Mapping[str, str] = ENABLES) -> Linked:
    """Resolve kernel names, variants and binding names. enables: WebGPU feature -> directive for this compiler."""
    buffers = [{"name": b.name, "size": b.size, "kind": b.kind} for b in program.buffers]
    linker = _Linker(enables, buffers, program.edits)
    linker.linked.uploads = [linker.upload(upload) for upload in program.uploads]
    linker.linked.plans = {name: linker.plan(plan) for name, plan in program.plans.items()}
    return linker.linked


class _Linker:
    """Collects modules and pipelines, each once."""

    def __init__(self, enables: Mapping[str, str], buffers: list[dict[str, Any]], edits: kernels.Edits) -> None:
        self.linked = Linked(buffers)
        self._enables = enables
        self._edits = edits
        self._modules: dict[str, int] = {}
        self._pipelines: dict[tuple[Any, ...], int] = {}

    def plan(self, plan: Plan) -> dict[str, Any]:
        return {"dispatches": [self._dispatch(dispatch) for dispatch in plan.dispatches], "result": plan.result}

    def upload(self, upload: Upload) -> dict[str, Any]:
        return {
            "source": upload.source,
            "offset": upload.offset,
            "rows": upload.rows,
            "rowBytes": upload.row_bytes,
            "rowsPerPiece": upload.rows_per_piece,
            "params": list(upload.params),
            "dispatch": self._dispatch(upload.dispatch),
        }

    def _dispatch(self, dispatch: Dispatch) -> dict[str, Any]:
        module = kernels.module(dispatch.kernel, dispatch.variants, self._edits)
        unknown = set(module.bindings).symmetric_difference(name for name, _ in dispatch.buffers)
        if unknown:
            raise ValueError(
                f"{dispatch.kernel}{dict(dispatch.variants)}: wants bindings {sorted(module.bindings)}, "
                f"got {sorted(name for name, _ in dispatch.buffers)}"
            )
        return {
            "pipeline": self._pipeline(dispatch, module),
            "buffers": [[module.bindings[name].number, buffer] for name, buffer in dispatch.buffers],
            "grid": [_size(size) for size in dispatch.grid],
        }

    def _pipeline(self, dispatch: Dispatch, module: kernels.Module) -> int:
        key = (dispatch.kernel, dispatch.variants, dispatch.constants)
        if key not in self._pipelines:
            self._pipelines[key] = len(self.linked.pipelines)
            self.linked.pipelines.append(
                {
                    "label": dispatch.label,
                    "module": self._module(module),
                    "constants": dict(dispatch.constants),
                    "threads": module.threads(dict(dispatch.constants)),
                    "bindings": [[b.number, b.access] for b in module.bindings.values()],
                }
            )
        return self._pipelines[key]

    def _module(self, module: kernels.Module) -> int:
        """Number of the module's text, directives first: on its first line, so that the others keep their numbers."""
        directives = [self._enables[feature] for feature in sorted(module.needs) if feature in self._enables]
        code = " ".join([*directives, module.code])
        if code not in self._modules:
            self._modules[code] = len(self.linked.modules)
            self.linked.modules.append(code)
        return self._modules[code]


def size_of(linked: int | list[Any]) -> Size:
    """The size that a linked grid has in this place."""
    if isinstance(linked, int):
        return linked
    kind, *numbers = linked
    return Split(*numbers) if kind == "split" else Ceil(kind, *numbers)


def _size(size: Size) -> int | list[Any]:
    if isinstance(size, Split):
        return ["split", size.tile, size.tiles, size.wanted, size.most, size.least]
    return [size.value, size.divisor] if isinstance(size, Ceil) else size
