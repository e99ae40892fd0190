"""The components: imports run downward only, without cycles, as docs/architecture.md says; `import rvpt` is light."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import rvpt

ROOT = Path(rvpt.__file__).parent
ARCHITECTURE = Path(__file__).parent.parent / "docs" / "architecture.md"
LAYERS = (
    ("errors",),
    ("registry", "progress", "presets"),
    ("spec", "files"),
    ("tensors", "artifacts", "rows"),
    ("data",),
    ("models",),
    ("training",),
    ("attacks", "exports"),
    ("inversion", "modifications"),
    ("defenses",),
    ("evaluation", "evasions"),
    ("detection", "insight"),
    ("report",),
    ("jobs",),
    ("bench", "demo", "web"),
    ("cli",),
)
PLACE = {component: layer for layer, components in enumerate(LAYERS) for component in components}
PACKAGE = {"__init__": -1, "__main__": len(LAYERS)}  # the version, which all may read, and the way in from outside
MODULES = sorted(ROOT.rglob("*.py"))
LAZY = re.compile(r"(rvpt(?:\.\w+)+):\w+")  # an entry of a registry
HEAVY = {
    "accelerate", "datasets", "gradio", "jinja2", "matplotlib", "onnx", "onnxruntime", "open_clip", "ray", "scipy",
    "sklearn",
}  # fmt: skip


def dotted(path, root=ROOT):
    """The name of a module, "rvpt.data.load" or "rvpt.data" for an __init__.py."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("rvpt", *(part for part in parts if part != "__init__")))


NAMES = {dotted(path) for path in MODULES}


def component(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def layer(name):
    return {**PLACE, **PACKAGE}[name]


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(tree, *, when_imported):
    """All nodes of a module, or only those that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(node)
        if not (when_imported and later):
            yield node
            yield from statements(node, when_imported=when_imported)


def imports(path, *, when_imported=False):
    """The modules of the package that a file imports; entries of registries count as imports in functions."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), when_imported=when_imported):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "rvpt")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module.split(".")[0] == "rvpt":
                inner = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in NAMES else node.module for name in inner)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not when_imported:
            yield from LAZY.findall(node.value)


def test_every_module_has_a_place():
    assert {component(dotted(path)) for path in MODULES if path.parent != ROOT} <= PLACE.keys()
    assert {path.stem for path in ROOT.glob("*.py")} <= PLACE.keys() | PACKAGE.keys()
    assert all((ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file() for name in PLACE)


@pytest.mark.parametrize("path", [path for path in MODULES if path != ROOT / "__init__.py"], ids=dotted)
def test_imports_run_downward_and_not_between_components_of_one_layer(path):
    mine = "__main__" if path == ROOT / "__main__.py" else component(dotted(path))
    wrong = {name for name in imports(path) if component(name) != mine and layer(component(name)) >= layer(mine)}
    assert not wrong


def cycle(graph):
    """The names of one cycle, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_modules_do_not_import_each_other_in_circles():
    graph = {dotted(path): set(imports(path, when_imported=True)) - {dotted(path)} for path in MODULES}
    assert cycle(graph) is None


def test_the_walk_finds_imports_of_every_form(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import rvpt.training.loop\nfrom rvpt import __version__, cli\nfrom rvpt.attacks.patch import Patch\n"
        "import torch\nclass A:\n    from rvpt.rows import Rows\n"
        "if TYPE_CHECKING:\n    from rvpt.jobs import output_dirs\n"
        "def f():\n    from rvpt.report import table\n    return 'rvpt.defenses.rvpt:RVPT'\n"
    )
    at_once = {"rvpt.training.loop", "rvpt", "rvpt.cli", "rvpt.attacks.patch", "rvpt.rows"}
    assert set(imports(path, when_imported=True)) == at_once
    assert set(imports(path)) == at_once | {"rvpt.jobs.output_dirs", "rvpt.report", "rvpt.defenses.rvpt"}


def test_a_cycle_would_be_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) is not None
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) is None


def test_the_docs_show_the_same_layers():
    (block,) = re.findall(r"```text\nlayers \(bottom first\)\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    shown = [line.partition(":") for line in block.splitlines()]
    assert [int(number) for number, _, _ in shown] == list(range(1, len(LAYERS) + 1))
    assert [set(re.findall(r"\w+", components)) for _, _, components in shown] == [
        set(components) for components in LAYERS
    ]


def modules_after(code):
    """Names of the modules that `code` loads in a new interpreter."""
    script = f"import sys\nbefore = set(sys.modules)\ntry:\n    {code}\nexcept SystemExit as end:\n"
    script += "    assert not end.code, end.code\nprint('MODULES', *set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.rsplit("MODULES", 1)[1].split()}


def test_importing_the_package_loads_nothing_but_the_standard_library():
    assert modules_after("import rvpt") - sys.stdlib_module_names == {"rvpt"}


def test_help_loads_nothing_heavy():
    loaded = modules_after("import rvpt.cli; sys.argv = ['rvpt', '--help']; rvpt.cli.main()")
    assert not loaded & {*HEAVY, "torch", "transformers"}
    assert "typer" in loaded


# Public names


def declared():
    """Public name -> the module that type checkers are told it is from."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = filter(is_type_checking, tree.body)
    for node in block.body:
        (alias,) = node.names
        assert alias.asname == alias.name, "type checkers take names for public that are imported as themselves"
        yield alias.name, node.module


def test_type_checkers_see_all_public_names():
    assert sorted(["__version__", *dict(declared())]) == sorted(rvpt.__all__)
    assert (ROOT / "py.typed").is_file()


@pytest.mark.parametrize(("name", "module"), list(declared()))
def test_a_public_name_is_what_type_checkers_see(name, module):
    assert getattr(rvpt, name) is getattr(import_module(module), name)
    assert name in dir(rvpt)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'rvpt' has no attribute 'nothing'"):
        rvpt.nothing  # noqa: B018
