"""TypeScript declarations of the page's JavaScript API, as `npm run build` makes them from the JSDoc."""

import json
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TSC = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
USAGE = ROOT / "tests" / "browser" / "types" / "usage.ts"


def tsc(*arguments):
    done = subprocess.run(["node", TSC, *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_jsdoc_of_what_a_page_imports_agrees_with_the_code():
    assert tsc("-p", "tsconfig.json") == ""


def test_a_page_in_typescript_is_checked_against_the_declarations(tmp_path):
    """The package as npm would install it: its package.json names the declarations."""
    package = tmp_path / "node_modules" / "webllm"
    emitted = tsc("-p", "tsconfig.types.json", "--outDir", str(package / "types"))
    assert emitted == ""
    shutil.copy(ROOT / "browser_shell" / "index.d.ts", package / "types")
    shutil.copy(ROOT / "browser_shell" / "package.json", package)
    shutil.copy(USAGE, tmp_path)
    options = {"strict": True, "noEmit": True, "target": "es2024", "module": "esnext", "moduleResolution": "bundler"}
    options |= {"lib": ["es2024", "dom", "dom.iterable", "dom.asynciterable"], "types": [], "skipLibCheck": False}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["usage.ts"]}))
    assert tsc("-p", str(tmp_path)) == ""
