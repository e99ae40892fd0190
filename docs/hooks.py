"""MkDocs hook: a line `<!-- table: NAME -->` in a page becomes a table made from rvpt's registries.

The docs follow the code that way: a new defense, trigger, protocol, metric or shift is in them without an edit here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import typer
from pydantic_core import PydanticUndefined

from rvpt.attacks import TRIGGERS
from rvpt.attacks.backdoor import AttackSpec
from rvpt.attacks.poison import PoisonSpec
from rvpt.cli.app import app
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.detection import SCORES
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.metrics import CLASSIFICATION
from rvpt.evaluation.perturbations import PERTURBATIONS
from rvpt.evasions import EVASIONS
from rvpt.exports import EXPORTS
from rvpt.exports.distilled import SMALL, DistillSpec
from rvpt.insight import FIGURES
from rvpt.modifications import MODIFICATIONS
from rvpt.report.figures import DRAWINGS
from rvpt.spec import Spec, TrainSpec
from rvpt.training.pretrain import PRESETS, PretrainSpec, VisionSpec

MARK = re.compile(r"^<!-- table: ([\w-]+) -->$", re.MULTILINE)
DEFAULT = "default: "
COMMON = {"name", "target", "seed", "mode"}  # options of every trigger


def on_page_markdown(markdown: str, **context: Any) -> str:
    """Called by MkDocs for every page before it is rendered."""
    markdown = markdown.replace("```python no-run", "```python")  # a word for the tests
    return MARK.sub(lambda mark: TABLES[mark[1]](), markdown)


def table(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def code(value: Any) -> str:
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value}`"


def first_sentence(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")


def fields(spec: type[Spec], without: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """Name -> (default, description) of a spec's settings."""
    return {
        name: ("required" if field.default is PydanticUndefined else code(field.default), field.description or "")
        for name, field in spec.model_fields.items()
        if name not in without
    }


def settings(spec: type[Spec], presets: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The settings of a spec, with what presets change."""
    others = {name: changes for name, changes in (presets or {}).items() if name != "paper"}
    described = fields(TrainSpec) if issubclass(spec, TrainSpec) else {}
    lines = [
        [code(name), default, *(code(changes[name]) if name in changes else "" for changes in others.values()),
         words or described.get(name, ("", ""))[1] or name.replace("_", " ")]
        for name, (default, words) in fields(spec).items()
    ]  # fmt: skip
    heads = ['"paper" (default)', *(f'"{name}"' for name in others)] if presets else ["default"]
    return table(["setting", *heads, "what it is"], lines)


def defenses() -> str:
    return table(
        ["name", "what is trained", "learns from", "own classifier"],
        ([code(name), d.summary, d.learns(), "yes" if d.has_head else "no"] for name, d in DEFENSES.items()),
    )


def defense_settings() -> str:
    parts = (f"### {name}\n\n{first_sentence(d)}\n\n{settings(d.Spec, d.presets())}" for name, d in DEFENSES.items())
    return "\n\n".join(parts)


def triggers() -> str:
    return table(
        ["name", "what it is", "made for one model", "options (default)"],
        ([code(name), first_sentence(t), "yes" if t.crafted else "no", _options(t.Spec)]
         for name, t in TRIGGERS.items()),
    )  # fmt: skip


def _options(spec: type[Spec]) -> str:
    return ", ".join(f"{code(name)} ({default})" for name, (default, _) in fields(spec, COMMON).items())


def protocols() -> str:
    return table(
        ["name", "what it measures", "needs", "settings"],
        ([code(name), p.summary, p.needs, ", ".join(map(code, p.Settings.model_fields)) or "none"]
         for name, p in PROTOCOLS.items()),
    )  # fmt: skip


def metrics() -> str:
    return table(["name", "counted on"], ([code(name), f"{m.on} images"] for name, m in CLASSIFICATION.items()))


def scores() -> str:
    return table(["name", "what it is"], ([code(name), s.summary] for name, s in SCORES.items()))


def exports() -> str:
    return table(["name", "what it is"], ([code(name), kind.summary] for name, kind in EXPORTS.items()))


def modifications() -> str:
    return table(
        ["name", "what it does", "settings (default)"],
        ([code(name), m.summary, _options(m.Settings) or "none"] for name, m in MODIFICATIONS.items()),
    )


def evasions() -> str:
    return table(
        ["name", "what it does", "settings (default)"],
        ([code(name), e.summary, _options(e)] for name, e in EVASIONS.items()),
    )


def shifts() -> str:
    return table(["name", "what it does"], ([code(name), first_sentence(s)] for name, s in SHIFTS.items()))


def perturbations() -> str:
    return table(["name", "what it does"], ([code(name), first_sentence(p)] for name, p in PERTURBATIONS.items()))


def figures() -> str:
    """The figures with what they show and the shapes of their arrays."""
    arrays = {name: " ".join((inspect.getdoc(m) or "").split("\n\nRaises")[0].split()) for name, m in FIGURES.items()}
    lines = ([code(name), DRAWINGS[name].title, DRAWINGS[name].caption, arrays[name]] for name in FIGURES)
    return table(["name", "title", "what it shows", "arrays"], lines)


def pretraining() -> str:
    lines = ([code(name), *(", ".join(f"{k}={v}" for k, v in preset[part].items()) or "the defaults below"
                            for part in ("vision", "train"))] for name, preset in PRESETS.items())  # fmt: skip
    return table(["preset", "geometry", "schedule"], lines)


def commands() -> str:
    """Every command with its help, arguments and options."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    return "\n\n".join(_command(name, group.commands[name]) for name in group.list_commands(context))


def _command(name: str, command: Any) -> str:
    texts = type(command).more_help().texts
    lines = ([_spelling(p), _inline(_words(p, texts)), _default(p, texts)] for p in command.params)
    return f"## rvpt {name}\n\n{command.help}\n\n{table(['option', 'what it is', 'default'], lines)}"


def _words(parameter: Any, texts: Mapping[str, str]) -> str:
    """The help of a parameter, with what the core adds to it other than its default."""
    words, more = getattr(parameter, "help", None) or "", texts.get(parameter.name, "")
    return words if not more or more.startswith(DEFAULT) else f"{words} ({more})"


def _inline(words: str) -> str:
    """Help that Markdown shows as it is: {} and <image> are no markup."""
    return words.replace("<", "&lt;")


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return code(parameter.metavar or parameter.name.upper())
    return ", ".join(map(code, [*parameter.opts, *parameter.secondary_opts]))


def _default(parameter: Any, texts: Mapping[str, str]) -> str:
    value, shown = parameter.default, getattr(parameter, "show_default", None)
    more = texts.get(parameter.name, "")
    if more.startswith(DEFAULT):  # it depends on the preset, say
        return _inline(more.removeprefix(DEFAULT))
    if isinstance(shown, str):
        return shown
    if value is None or value is False or value in ((), []) or callable(value):
        return "required" if parameter.required else ""
    return code(value)


TABLES: dict[str, Callable[[], str]] = {
    "defenses": defenses,
    "defense-settings": defense_settings,
    "triggers": triggers,
    "protocols": protocols,
    "metrics": metrics,
    "scores": scores,
    "shifts": shifts,
    "exports": exports,
    "distill-settings": lambda: settings(DistillSpec, {"small": SMALL}),
    "modifications": modifications,
    "evasions": evasions,
    "attack-settings": lambda: settings(AttackSpec),
    "poison-settings": lambda: settings(PoisonSpec),
    "perturbations": perturbations,
    "figures": figures,
    "pretraining": pretraining,
    "vision-settings": lambda: settings(VisionSpec),
    "pretrain-settings": lambda: settings(PretrainSpec),
    "commands": commands,
}
