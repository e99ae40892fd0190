"""The files around the package say what is true of it: constraints, docs, changelog."""

import ast
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import rvpt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOME = Path(__file__).parent.parent
MODULES = sorted(Path(rvpt.__file__).parent.rglob("*.py"))


def read(name):
    return (HOME / name).read_text(encoding="utf-8")


def test_the_lowest_versions_are_those_of_pyproject():
    dependencies = tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]
    lowest = [line for line in read("constraints/lowest.txt").splitlines() if not line.startswith("#")]
    assert lowest == [bound.replace(">=", "==", 1) for bound in dependencies]


def texts(path):
    """The strings in a module, with "..." in place of what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_scripts_import_what_there_is():
    for path in (path for folder in ("benchmarks", "examples", "models") for path in (HOME / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rvpt":
                module = import_module(node.module)
                for name in (each.name for each in node.names):
                    assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), (path.name, node.module, name)


def test_troubleshooting_quotes_messages_that_exist():
    quoted = re.findall(r"^### `(.+)`$", read("docs/guides/troubleshooting.md"), re.MULTILINE)
    known = [text for path in MODULES for text in texts(path)]
    patterns = {message: ".*".join(map(re.escape, message.split("..."))) for message in quoted}
    assert len(patterns) > 20
    assert not [message for message, pattern in patterns.items() if not any(re.fullmatch(pattern, k) for k in known)]


def test_changelog_and_citation_have_this_version():
    assert f"\n## {rvpt.__version__}" in read("CHANGELOG.md")
    assert f"\nversion: {rvpt.__version__}\n" in read("CITATION.cff")


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= 150
