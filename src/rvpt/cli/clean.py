"""rvpt clean: clean a suspect CLIP."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import DEFENSE, SHIFT
from rvpt.cli.describe import by_preset, default_texts, describe
from rvpt.cli.errors import VERDICTS
from rvpt.cli.options import (
    CHECK,
    DATA,
    TRAINING,
    CalibrationFolder,
    CaptionColumn,
    Data,
    Device,
    Epochs,
    FoundByCheck,
    Json,
    LearningRate,
    ModelArgument,
    OnErrors,
    OutputDir,
    Overwrite,
    Reference,
    Resume,
    Sets,
    ShiftName,
    SpecPrecision,
    SpecSeed,
)
from rvpt.cli.panels import CLEANING
from rvpt.cli.settings import Settings, gather
from rvpt.cli.tables import show_checked_cleaning, show_facts
from rvpt.errors import RvptError
from rvpt.presets import CleanPreset


def _help() -> MoreHelp:
    from rvpt.defenses import DEFENSES
    from rvpt.jobs.drawing import SHOTS

    rvpt = DEFENSES["rvpt"]
    presets = rvpt.presets()
    pairs = {name: kind.published_pairs for name, kind in DEFENSES.items() if kind.published_pairs}
    texts = {
        "defense": DEFENSE.text(),
        "shift": SHIFT.text(),
        "shots": f"default: {SHOTS}",
        "num_pairs": f"default: {by_preset(pairs)}",
        **default_texts(rvpt.Spec, presets, ("alpha", "prompt_length", "lr", "epochs", "precision", "seed")),
    }
    return MoreHelp(texts, describe(rvpt.Spec, presets))


@command(CLEANING, _help)
def clean(
    model: ModelArgument,
    data: Data,
    output_dir: OutputDir,
    defense: Annotated[str, DEFENSE.option(help="How to clean it; 'rvpt defenses' describes them.")] = "rvpt",
    preset: Annotated[
        CleanPreset,
        typer.Option(
            help="Settings: the paper's, those for small CLIPs, or those of CoOp; auto chooses by the model's size."
        ),
    ] = "auto",
    shots: Annotated[int | None, typer.Option(min=1, help="Clean images per class.")] = None,
    seed: SpecSeed = None,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    alpha: Annotated[
        float | None,
        typer.Option(help="Weight of the feature-repelling loss; 0 is VPT.", rich_help_panel=TRAINING),
    ] = None,
    prompt_length: Annotated[
        int | None, typer.Option(min=1, help="Prompts per block.", rich_help_panel=TRAINING)
    ] = None,
    lr: LearningRate = None,
    epochs: Epochs = None,
    precision: SpecPrecision = None,
    settings: Sets = None,
    split: Annotated[str, typer.Option(help="Split of the data to draw from.", rich_help_panel=DATA)] = "train",
    exclude_class: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Leave this class out; repeatable.", rich_help_panel=DATA),
    ] = None,
    num_pairs: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Image-caption pairs, for defenses that learn from captions.",
            rich_help_panel=DATA,
        ),
    ] = None,
    caption_column: CaptionColumn = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file with the classes, one per line: the images are used without labels (unlearn, "
            "unlearn-prompts).",
            rich_help_panel=DATA,
        ),
    ] = None,
    shift: ShiftName = None,
    on_error: OnErrors = "stop",
    check: FoundByCheck = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Check the model first, clean it unless it looks clean, then check it again.",
            rich_help_panel=CHECK,
        ),
    ] = False,
    calibration: CalibrationFolder = None,
    reference: Reference = None,
    as_json: Json = False,
) -> None:
    """Clean a suspect CLIP with a few clean images, and save the result: for RVPT, an adapter.

    The settings and defaults below are those of RVPT; 'rvpt defenses' lists those of all defenses.

    With --auto the folder gets check-before/, cleaned/, accuracy.json and check-after/, and the exit code is that of
    the last check: 0 for a clean model, 3 for a suspicious one, 4 for a backdoored one.
    """
    from rvpt.cli.models import load_suspect
    from rvpt.data.classnames import read_names
    from rvpt.data.load import may_have_test_images
    from rvpt.defenses import DEFENSES
    from rvpt.jobs.checked_cleaning import check_clean_check
    from rvpt.jobs.cleaning import clean_and_save
    from rvpt.jobs.output_dirs import refuse_source
    from rvpt.models.load import load

    _refuse_unused(check, {"calibration": calibration, "reference": reference}, auto=auto)
    changes = gather(
        settings, alpha=alpha, prompt_length=prompt_length, lr=lr, epochs=epochs, precision=precision, seed=seed
    )
    drawing: Settings = {
        "preset": preset, "split": split, "shots": shots, "without": exclude_class or [], "num_pairs": num_pairs,
        "caption_column": caption_column, "shift": shift, "on_error": on_error,
        **({"classes": read_names(classes)} if classes else {}),
    }  # fmt: skip
    run: Settings = {"resume": resume, "overwrite": overwrite}
    refuse_source(output_dir, [str(place) for place in (calibration, reference, check) if place])
    suspect = load_suspect(model, device)
    if auto:
        trusted = load(reference, device=device) if reference is not None else None
        found = check_clean_check(
            suspect, data, output_dir, defense, changes, progress.bar, calibration=calibration, reference=trusted,
            **run, **drawing,
        )  # fmt: skip
        show_checked_cleaning(found, output_dir, as_json=as_json)
        raise typer.Exit(VERDICTS[(found["after"] or found["before"])["verdict"]])
    with progress.bar("clean") as report:
        facts = clean_and_save(
            suspect, data, output_dir, defense, changes, check=check, report=report, **run, **drawing
        )  # fmt: skip
    show_facts({"cleaned": str(output_dir), **facts}, as_json=as_json)
    if not as_json:
        labeled = DEFENSES.find(defense).learns_from == "labels" and not classes and may_have_test_images(data)
        words = ["rvpt", "evaluate", model, str(output_dir), "--data", data if labeled else "LABELED_IMAGES"]
        print(f"to measure it: {shlex.join([*words, *(['--shift', shift] if shift else [])])}")


def _refuse_unused(check: Path | None, checks: Settings, *, auto: bool) -> None:
    """Refuse a check beside --auto, which makes its own, and settings of checks without it."""
    if auto and check:
        raise RvptError(f"auto=True makes a check of its own: remove check={check}")
    for name, given in checks.items():
        if given is not None and not auto:
            raise RvptError(f"{name}={given} is for the checks of auto=True: add that, or pass it to 'rvpt check'")
