"""The wheel is built and listed: what users and the page install is what is tested here."""

import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PURE_IN_THE_PAGE = {"jinja2"}  # and markupsafe, which jinja2 brings


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    subprocess.run(["npm", "run", "--silent", "build"], cwd=ROOT, check=True)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def base_requirements(wheel, **environment):
    """The names that a plain `pip install webllm` brings in an environment."""
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    requirements = map(Requirement, metadata.get_all("Requires-Dist"))
    return {r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": "", **environment})}


def files_of(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_the_wheel_is_pure_and_runs_on_every_platform(wheel):
    assert wheel.filename.endswith("-py3-none-any.whl")


@pytest.mark.parametrize(("folder", "inside"), [("kernels_wgsl", "_kernels_wgsl"), ("build/page", "_browser_shell")])
def test_the_wheel_carries_every_file_of_a_folder_that_lies_beside_the_package(wheel, folder, inside):
    wanted = {f"webllm/{inside}/{name}" for name in files_of(ROOT / folder) if not name.startswith(".")}
    assert wanted and wanted <= set(wheel.namelist())


def test_the_npm_package_has_the_version_of_the_wheel(wheel):
    package = json.loads(wheel.read("webllm/_browser_shell/package.json"))
    assert Path(wheel.filename).name.startswith(f"webllm-{package['version']}-")


def test_the_wheel_carries_every_module(wheel):
    assert {f"webllm/{name}" for name in files_of(ROOT / "webllm")} <= set(wheel.namelist())


def test_the_wheel_installs_one_top_level_name(wheel):
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"webllm"}


def test_the_page_installs_only_pure_python(wheel):
    assert base_requirements(wheel, sys_platform="emscripten", platform_system="Emscripten") == PURE_IN_THE_PAGE


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_plain_install_is_ready_for_the_gpu_natively(wheel, platform):
    assert {"wgpu", "numpy", "tokenizers", "jinja2"} <= base_requirements(wheel, sys_platform=platform)


def test_no_requirement_is_a_test_tool(wheel):
    assert not base_requirements(wheel, sys_platform="linux") & {"pytest", "gguf", "wgpudawn", "torch", "transformers"}
