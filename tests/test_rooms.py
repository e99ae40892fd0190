"""The house: imports run downward only, and a plain import is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rvpt

ROOT = Path(rvpt.__file__).parent
ROOMS = [
    {"rvpt", "errors", "config", "presets", "store", "progress"},
    {"augment", "clip", "data", "draws", "loaders", "readers", "scenes", "shifts"},
    {"prompts", "losses", "metrics", "similarity", "pgd"},
    {"train", "checkpoint"},
    {"pretrain", "attacks", "defenses", "evaluation", "insight", "retrieval", "captioning", "adversarial", "predict"},
    {"report", "export", "jobs"},
    {"demo", "bench"},
    {"cli", "__main__"},
]
FLOOR = {name: floor for floor, names in enumerate(ROOMS) for name in names}
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = {"accelerate", "datasets", "matplotlib", "onnx", "onnxruntime", "open_clip", "ray", "scipy", "sklearn"}


def room(module):
    """The room of a module given by its dotted name; the package itself is on the ground floor."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else "rvpt"


def imported(path):
    """Dotted names of all modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if node.module == "rvpt" else node.module for name in names)


def uses(path):
    """The rooms that a file imports from; `from rvpt import __version__` is the ground floor."""
    ours = (name for name in imported(path) if name.split(".")[0] == "rvpt")
    return {room(name) for name in ours if room(name) in FLOOR or is_module(name)}


def is_module(name):
    base = ROOT.joinpath(*name.split(".")[1:])
    return base.is_dir() or base.with_suffix(".py").is_file()


def own_room(path):
    return room(".".join(("rvpt", *path.relative_to(ROOT).with_suffix("").parts)))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path):
    mine = own_room(path)
    assert mine in FLOOR, f"{mine} has no room in DESIGN.md"
    upward = {name for name in uses(path) if FLOOR.get(name, len(ROOMS)) > FLOOR[mine]}
    assert not upward


def test_the_walk_sees_imports_of_every_form(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import rvpt.train\nfrom rvpt import __version__, cli\nfrom rvpt.attacks.patch import Patch\nimport torch\n"
        "def f():\n    from rvpt.report import table\n"
    )
    assert uses(path) == {"train", "cli", "attacks", "report"}


def modules_after(code):
    """Top-level modules that are loaded after running `code` in a new interpreter."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    script += "print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.rsplit("MODULES", 1)[1].split())


def test_importing_the_package_imports_nothing_heavy():
    assert not modules_after("import rvpt") & {*HEAVY, "torch", "transformers", "numpy"}


def test_help_imports_nothing_heavy():
    code = "import rvpt.cli; sys.argv = ['rvpt', '--help']; rvpt.cli.main()"
    loaded = modules_after(code)
    assert not loaded & {*HEAVY, "torch", "transformers"}
    assert "typer" in loaded
