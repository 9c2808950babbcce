"""Draws where the time of a token and of a prompt goes, from the JSON of `webllm bench` and bench.html.

    python tests/bench/plot.py native.jsonl chromium.jsonl --out docs/where-the-time-goes.svg

Each file has one JSON object a line; each becomes a group of two bars. The upper one is the GPU: every part of the
model by timestamps around its dispatches, run in passes of their own, scaled to the step as a whole where they add up
to more (a pass has costs of its own); what the step takes beyond them is gaps. The lower one is the host: encoding, and
waiting. The black mark is what a token or prompt took by the clock.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "webllm"}  # text stays text, and the file is always the same

# Okabe and Ito's colours, which those who see fewer colours tell apart, and greys for what is no work.
PARTS = {
    "embedding": "#999999",
    "qkv": "#0072B2",
    "attention": "#E69F00",
    "o_proj": "#56B4E9",
    "gate+up": "#009E73",
    "down": "#F0E442",
    "LM head": "#CC79A7",
    "choose": "#D55E00",
    "rest": "#666666",
    "gaps": "#DDDDDD",
}
HOST = {"encode": "#555555", "wait": "#BBBBBB"}
BAR = 0.36
LABELLED = 0.05  # of the axis: a narrower piece has no room for its name


@dataclass(frozen=True)
class Bar:
    """One measurement: milliseconds of a token or a prompt."""

    name: str
    gpu: dict[str, float]
    host: dict[str, float]
    wall: float


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The results in files of one JSON object a line."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line]


def bars(results: Sequence[dict[str, Any]], phase: str) -> list[Bar]:
    """What can be drawn of a phase: measurements with timestamps."""
    return [
        _bar(result, one)
        for result in results
        for one in result["results"]
        if one["phase"] == phase and one["gpu_ms_by_part"] is not None
    ]


def _bar(result: dict[str, Any], one: dict[str, Any]) -> Bar:
    tokens = one["tokens"] if one["phase"] == "prefill" else 1
    where = f"at {one['at_context']}" if one["phase"] == "decode" else f"{one['tokens']} tokens"
    host = {name: one[f"{name}_ms"] for name in HOST}
    wall = tokens * 1e3 / one["tokens_per_s_median"]
    return Bar(
        f"{_model(result)}\n{_program(result)}, {where}", split(one["gpu_ms_by_part"], one["gpu_ms"]), host, wall
    )


def split(parts: dict[str, float], whole: float) -> dict[str, float]:
    """The whole step by part, in the order of PARTS; with gaps, or scaled where the parts add up to more."""
    total = sum(parts.values())
    scale = min(1.0, whole / total) if total else 1.0
    known = {name: scale * sum(ms for part, ms in parts.items() if _known(part) == name) for name in PARTS}
    known["gaps"] = max(0.0, whole - total)
    return {name: ms for name, ms in known.items() if ms > 0}


def _known(part: str) -> str:
    return part if part in PARTS else "rest"


def _model(result: dict[str, Any]) -> str:
    name = result["model"].removesuffix(".json").removesuffix(".gguf").rpartition("/")[2]
    return f"{name} {result['quant'] or ''}".strip()


def _program(result: dict[str, Any]) -> str:
    return "Chromium" if result["versions"]["pyodide"] else "native"


def draw(results: Sequence[dict[str, Any]], out: Path) -> None:
    """Write the picture; its name's ending says of which kind."""
    phases = {"decode": "ms a token", "prefill": "ms a prompt"}
    drawn = {phase: found for phase in phases if (found := bars(results, phase))}
    if not drawn:
        raise SystemExit("no result has gpu_ms_by_part: the device has no timestamps")
    heights = [len(found) for found in drawn.values()]
    size = (10, 1.3 + 0.85 * sum(heights) + 0.8 * len(heights))
    figure, axes = plt.subplots(len(drawn), 1, figsize=size, height_ratios=heights, squeeze=False, layout="constrained")
    for ax, (phase, found) in zip(axes[:, 0], drawn.items(), strict=True):
        _draw_phase(ax, found, f"{phase}: {phases[phase]}")
    adapters = ", ".join(sorted({result["adapter"] for result in results}))
    figure.suptitle(f"Where the time goes: {adapters}", x=0.01, ha="left")
    seen = {name for found in drawn.values() for bar in found for name in bar.gpu}
    legend = [Patch(color=colour, label=name) for name, colour in PARTS.items() if name in seen]
    figure.legend(handles=legend, loc="outside lower left", ncols=len(legend), fontsize=8, frameon=False)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    plt.close(figure)


def _draw_phase(ax: Axes, found: Sequence[Bar], title: str) -> None:
    most = max(max(bar.wall, sum(bar.gpu.values()), sum(bar.host.values())) for bar in found)
    for number, bar in enumerate(found):
        _stack(ax, number - BAR / 2, bar.gpu, PARTS, most)
        _stack(ax, number + BAR / 2, bar.host, HOST, most)
        ax.plot([bar.wall] * 2, [number - BAR, number + BAR], color="black", linewidth=2)
        end = max(bar.wall, sum(bar.gpu.values()))
        label = f"{_number(bar.wall)} ms"
        ax.annotate(label, (end, number), (4, 0), textcoords="offset points", va="center", weight="bold")
    ax.set_yticks(range(len(found)), [bar.name for bar in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(0, most * 1.12)
    ax.set_title(title, loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)


def _stack(ax: Axes, y: float, pieces: dict[str, float], colours: dict[str, str], most: float) -> None:
    """Pieces side by side from 0 on; those that have the room bear name and milliseconds."""
    left = 0.0
    for name, ms in pieces.items():
        ax.barh(y, ms, BAR, left, color=colours[name], edgecolor="white", linewidth=0.5)
        if ms > LABELLED * most:
            ink, text = "white" if _dark(colours[name]) else "black", f"{name}\n{_number(ms)}"
            ax.text(left + ms / 2, y, text, ha="center", va="center", fontsize=7, color=ink, linespacing=0.9)
        left += ms


def _number(ms: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    draw(read(options.files), options.out)


if __name__ == "__main__":
    main()
