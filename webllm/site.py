"""A self-contained static folder: the page, Pyodide, the wheels and a model. Any web server can publish it.

    OUT/                 the page: browser_shell/, bundled
    OUT/pyodide/         Pyodide's core
    OUT/wheels/          webllm and the two wheels it needs in the page
    OUT/python.snapshot.gz   Python's memory after `import webllm`: see webllm/snapshot.py
    OUT/models/          the model, if one was given
    OUT/sw.js            the service worker, with the hash of site.json in front
    OUT/site.json        {"wheels": [file names, in the order to install],
                          "models": {short name: {"url", "bytes", "sha256", "piece_bytes", "pieces"}},
                          "pyodide": version, "files": {path: "sha256-..."}}

`files` is all that a visitor may load but the models, with the hashes as browsers take them for `integrity`: the page
compares Pyodide and the wheels, the service worker everything. Nothing is fetched here, and the page loads nothing from
elsewhere. What the page does with it all is its own matter.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webllm.errors import FetchError, RequestError
from webllm.pieces import hashed
from webllm.snapshot import write_snapshot

PYODIDE_FILES = ("pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
MANIFEST = "site.json"
SNAPSHOT = "python.snapshot.gz"
SERVICE_WORKER = "sw.js"
WHEELS = ("markupsafe", "jinja2", "webllm")  # each after what it imports

_PACKAGE = Path(__file__).parent
_QUANTISATION = re.compile(r"[.-](?:I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


@dataclass(frozen=True)
class Parts:
    """Where the pieces of a site lie."""

    page: Path  # folder: what `npm run build` makes of browser_shell/
    pyodide: Path  # folder: the npm package `pyodide`
    wheels: Path  # folder: one wheel each of webllm, jinja2 and markupsafe

    @classmethod
    def find(cls, root: Path | None = None) -> Parts:
        """Return the parts as `make page-wheels` leaves them in the checkout `root`.

        root defaults to the checkout this module lies in. A webllm out of a wheel brings its own page, and takes the
        rest from the working directory, which should be a checkout.
        """
        packaged = _PACKAGE / "_browser_shell"
        root = root or (Path.cwd() if packaged.is_dir() else _PACKAGE.parent)
        return cls(
            page=packaged if packaged.is_dir() else root / "build" / "page",
            pyodide=root / "node_modules" / "pyodide",
            wheels=root / "build" / "wheels",
        )


def build_site(out: Path, *, model: Path | None, parts: Parts) -> Path:
    """Write the site into the folder `out`, over an earlier site, and return `out`.

    model   a .gguf file, or None for a site whose visitors bring a model
    Raises FetchError when a part is missing, and RequestError when `out` holds something that is not a site,
    before anything is written.

    build_site(Path("build/site"), model=Path("SmolLM2-135M-Instruct.Q4_1.gguf"), parts=Parts.find())
    """
    files = _files(parts)
    wheels = [_wheel(parts.wheels, name) for name in WHEELS]
    version = _pyodide_version(parts.pyodide)
    if model is not None:
        _need(model, "webllm pull MODEL")
    _refuse_other_folder(out)
    manifest = {"wheels": [wheel.name for wheel in wheels], "models": _models(model), "pyodide": version, "files": {}}
    out.mkdir(parents=True, exist_ok=True)
    _write_manifest(out, manifest)  # first, so that a site whose building was broken off can be built again
    files |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
    for name, source in files.items():
        _copy(source, out / name)
    write_snapshot(parts.pyodide, wheels, out / SNAPSHOT)
    if model is not None:
        _link(model.resolve(), out / "models" / model.name)
    _write_manifest(out, manifest | {"files": _hashes(out, [*files, SNAPSHOT])})
    _copy(parts.page / SERVICE_WORKER, out / SERVICE_WORKER, before=f'const VERSION="{_integrity(out / MANIFEST)}";')
    return out


def short_name(model: Path) -> str:
    """Return the name that a page knows a model file by: its stem in lower case, without the quantisation.

    short_name(Path("SmolLM2-135M-Instruct.Q4_1.gguf")) == "smollm2-135m-instruct"
    """
    return _QUANTISATION.sub("", model.stem).lower()


def _files(parts: Parts) -> dict[str, Path]:
    """Everything but wheels and model: path in the site -> file."""
    _need(parts.page / "worker.js", "make page, in a checkout of webllm")
    page = {path.relative_to(parts.page).as_posix(): path for path in sorted(parts.page.rglob("*")) if path.is_file()}
    pyodide = {
        f"pyodide/{name}": _need(parts.pyodide / name, "npm ci, in a checkout of webllm") for name in PYODIDE_FILES
    }
    return page | pyodide


def _hashes(out: Path, names: Iterable[str]) -> dict[str, str]:
    """What visitors load, with the hashes; source maps and the service worker itself are none of that."""
    return {name: _integrity(out / name) for name in names if name != SERVICE_WORKER and not name.endswith(".map")}


def _integrity(path: Path) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()}"


def _wheel(folder: Path, name: str) -> Path:
    """The newest pure wheel of `name`."""
    found = sorted(folder.glob(f"{name}-*-none-any.whl"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else _need(folder / f"{name}-*-none-any.whl", "make page-wheels, in a checkout of webllm")


def _pyodide_version(folder: Path) -> str:
    package = json.loads(_need(folder / "package.json", "npm ci, in a checkout of webllm").read_text(encoding="utf-8"))
    return str(package["version"])


def _need(path: Path, way_out: str) -> Path:
    if not path.is_file():
        raise FetchError(f"the site needs {path}, which does not exist. It comes with: {way_out}")
    return path


def _refuse_other_folder(out: Path) -> None:
    """Whatever a folder holds that no site was written to is somebody's."""
    if out.exists() and any(out.iterdir()) and not _is_site(out):
        raise RequestError(f"{out} is not empty and holds no site of webllm; give a new or an empty folder")


def _is_site(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.keys() >= {"wheels", "models", "pyodide"}


def _models(model: Path | None) -> dict[str, dict[str, Any]]:
    """The models as the manifest lists them."""
    if model is None:
        return {}
    return {short_name(model): {"url": f"models/{model.name}", **hashed(model)}}


def _write_manifest(out: Path, manifest: Mapping[str, object]) -> None:
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path, *, before: str = "") -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if before:
        target.write_text(before + source.read_text(encoding="utf-8"), encoding="utf-8")
    else:
        shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> None:
    """Hard link, or copy to another file system. An old target is replaced, never written into: it may be a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
