"""Imports point one way: a module imports only what ranks below it, or beside it without a circle."""

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "webllm"

# Low to high. A name with a dot at its end stands for all modules of that package.
RANKS = [
    ["errors", "types", "display"],
    ["limits", "plan", "sampling"],
    ["kernels", "memory", "link"],
    ["catalog", "hub_place"],
    ["checkpoint.", "tokenizer_json", "tokenizer", "template_sandbox", "chat_template", "stops"],
    ["pieces", "cache_folder", "hub", "pull"],
    ["ops"],
    ["weights"],
    ["models."],
    ["program", "pace", "synthetic", "describe", "turns", "quantize", "report", "needs"],
    ["engine"],
    ["device.", "host."],
    ["lab", "cache", "opening"],
    ["selftest."],
    ["chat", "tune", "playground"],
    ["api"],
    ["cells", "sync", "bench", "convert", "browser_api", "snapshot", "site", "static_server", "demo"],
    ["cli."],
]
BROWSER_ONLY = {"js", "pyodide", "pyodide_js"}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def rank_of(module):
    """The rank of `webllm.x`; None for a package's __init__, which may gather what it likes."""
    if MODULES[module].name == "__init__.py" and module != "webllm.checkpoint":
        return None
    inner = module.removeprefix("webllm.")
    for rank, names in enumerate(RANKS):
        if any(inner == name or (name.endswith(".") and f"{inner}.".startswith(name)) for name in names):
            return rank
    pytest.fail(f"{module} has no rank: add it to RANKS where it belongs")


def imports_of(module):
    """The absolute names that a module imports when it runs, functions included, `if TYPE_CHECKING` left out."""
    names = set()
    pending = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        names |= imported_by(node, module)
        pending += ast.iter_child_nodes(node)
    return names


def imported_by(node, module):
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    assert node.level == 0, f"{module}:{node.lineno}: relative import; write it from webllm on"
    candidates = {f"{node.module}.{alias.name}" for alias in node.names}
    submodules = candidates & MODULES.keys()
    return submodules | ({node.module} if candidates - submodules else set())


def edges():
    return {module: imports_of(module) & MODULES.keys() for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_nothing_that_ranks_above_it(module):
    rank = rank_of(module)
    if rank is not None:
        above = {name for name in imports_of(module) & MODULES.keys() if (rank_of(name) or 0) > rank}
        assert not above, f"{module} imports {above}, which ranks above it"


def test_no_imports_run_in_a_circle():
    try:
        TopologicalSorter(edges()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_native_device_knows_wgpu():
    users = {module for module in MODULES if "wgpu" in {name.split(".")[0] for name in imports_of(module)}}
    assert users <= {"webllm.device.native"}


def test_only_the_browser_modules_know_javascript():
    users = {module for module in MODULES if BROWSER_ONLY & {name.split(".")[0] for name in imports_of(module)}}
    ours = {"webllm.device.browser", "webllm.host.browser", "webllm.host.javascript", "webllm.cells"}
    assert users <= ours


def test_importing_webllm_loads_no_gpu_no_arrays_and_no_web_server():
    code = "import sys, json, webllm; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    heavy = {"wgpu", "numpy", "tokenizers", "huggingface_hub", "jinja2", "starlette", "uvicorn", "typer", "rich"}
    assert not heavy & set(json.loads(out.stdout))
