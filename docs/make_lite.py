"""Build a JupyterLite site with webllm, notebooks and a model, all in one folder: `python docs/make_lite.py OUT`.

    OUT/                        JupyterLite
    OUT/files/                  the notebooks of docs/notebooks/
    OUT/static/pyodide/         Pyodide, and the packages that its Python kernel needs
    OUT/pypi/                   webllm's wheel, where `piplite.install("webllm")` finds it
    OUT/pypi/webllm/            what webllm looks for beside its wheel: site.json and models/

`make lite` runs it. What is downloaded (pure wheels, once) stays in build/lite/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from webllm.pull import pull
from webllm.site import short_name

ROOT = Path(__file__).parent.parent
MODEL = "smollm2-135m-instruct"
NPM_PYODIDE = ROOT / "node_modules" / "pyodide"
CORE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
LOCKED = ("ipython", "jedi", "micropip", "packaging", "typing-extensions", "jinja2", "tqdm")  # at the lock's versions
OTHER = ("comm==0.2.3", "markdown-it-py==4.3.0", "mdurl==0.1.2")  # not in Pyodide's distribution
PURE = ("--no-deps", "--only-binary=:all:", "--python-version=3.14", "--implementation=py", "--platform=any")
APPS = ("lab", "notebooks", "tree")
KERNEL = {"name": "python", "display_name": "Python (Pyodide)", "language": "python"}
SETTINGS = {"@jupyterlite/pyodide-kernel-extension:kernel": {"pyodideUrl": "./static/pyodide/pyodide.mjs"}}


def main() -> None:
    """Build the site into a folder."""
    parser = argparse.ArgumentParser(description="Build a JupyterLite site with webllm in it.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "wheels", help="those of `make page-wheels`")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "docs" / "notebooks")
    given = parser.parse_args()
    out, work = given.out.resolve(), ROOT / "build" / "lite"
    lock = json.loads((NPM_PYODIDE / "pyodide-lock.json").read_text(encoding="utf-8"))
    wanted = dependencies(lock["packages"], LOCKED)
    pins = [f"{name}=={lock['packages'][name]['version']}" for name in wanted]
    wheels = fetch_wheels(work / "wheels", given.wheels, pins)
    own = newest(given.wheels, "webllm")
    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    write_pyodide(source / "static" / "pyodide", lock, wanted, wheels)
    copy([own, *(wheels[name_of(pin)] for pin in OTHER)], source / "pypi")
    write_notebooks(given.notebooks, source / "files")
    config = {"jupyter-lite-schema-version": 0, "jupyter-config-data": {"litePluginSettings": SETTINGS}}
    (source / "jupyter-lite.json").write_text(json.dumps(config), encoding="utf-8")
    build(source, out)
    add_model(out / "pypi" / "webllm", pull(MODEL))


def dependencies(packages: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The keys in the lock of packages and of all that they depend on."""
    keys = {normal(key): key for key in packages}
    found: list[str] = []
    pending = [*names]
    while pending:
        key = keys[normal(pending.pop())]
        if key not in found:
            found.append(key)
            pending += packages[key]["depends"]
    return sorted(found)


def fetch_wheels(folder: Path, built: Path, pins: list[str]) -> dict[str, Path]:
    """Name -> a pure wheel, of the pins and of `OTHER`. markupsafe publishes none: `make page-wheels` has built it."""
    folder.mkdir(parents=True, exist_ok=True)
    copy([newest(built, "markupsafe")], folder)
    have = {(name_of(path.name), path.name.split("-")[1]) for path in folder.glob("*.whl")}
    missing = [pin for pin in (*pins, *OTHER) if (name_of(pin), pin.partition("==")[2]) not in have]
    if missing:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *PURE]
        subprocess.run([*command, "--dest", str(folder), *missing], check=True)
    return {name_of(pin): newest(folder, name_of(pin)) for pin in (*pins, *OTHER)}


def write_pyodide(folder: Path, lock: dict[str, Any], names: list[str], wheels: Mapping[str, Path]) -> None:
    """Pyodide with these packages only. The lock names hashes, which are enforced: it gets those of our wheels."""
    copy((NPM_PYODIDE / name for name in CORE), folder)
    for name in names:
        wheel = wheels[normal(name)]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lock["packages"][name] |= {"file_name": wheel.name, "sha256": digest}
        copy([wheel], folder)
    (folder / "pyodide-lock.json").write_text(json.dumps(lock), encoding="utf-8")


def write_notebooks(kept: Path, folder: Path) -> None:
    """The notebooks as they are before they have run, for the one kernel that there is."""
    folder.mkdir(parents=True)
    for path in sorted(kept.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"]["kernelspec"] = KERNEL
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        (folder / path.name).write_text(json.dumps(notebook, indent=1), encoding="utf-8")


def build(source: Path, out: Path) -> None:
    """Run JupyterLite's own builder."""
    apps = [f"--apps={app}" for app in APPS]
    folders = [f"--lite-dir={source}", f"--output-dir={out}", f"--contents={source / 'files'}"]
    command = [sys.executable, "-m", "jupyter", "lite", "build", "--force", "--no-sourcemaps", *apps, *folders]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"jupyter lite build failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def add_model(folder: Path, model: Path) -> None:
    """Put a model beside the wheel, where `webllm.load` looks for short names first."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    target = folder / "models" / model.name
    target.unlink(missing_ok=True)
    try:
        os.link(model, target)
    except OSError:  # another file system
        shutil.copyfile(model, target)
    models = {short_name(model): {"url": f"models/{model.name}", "bytes": model.stat().st_size}}
    (folder / "site.json").write_text(json.dumps({"models": models}, indent=2) + "\n", encoding="utf-8")


def newest(folder: Path, name: str) -> Path:
    """The newest wheel of a package."""
    found = [path for path in folder.glob("*.whl") if name_of(path.name) == name]
    if not found:
        raise SystemExit(f"no wheel of {name} in {folder}: run `make page-wheels`")
    return max(found, key=lambda path: path.stat().st_mtime)


def copy(files: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy2(file, folder)


def name_of(wheel_or_pin: str) -> str:
    """The normal name of what a wheel's file name or a pin begins with."""
    return normal(re.split(r"==|-(?=\d)", wheel_or_pin)[0])


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
