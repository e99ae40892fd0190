"""rvpt attack: backdoor a CLIP, and check that the attack succeeded."""

from __future__ import annotations

from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.attack_summary import verdict
from rvpt.cli.choices import EVASION, SHIFT
from rvpt.cli.describe import by_preset, default_texts, describe
from rvpt.cli.options import (
    DATA,
    TRAINING,
    CaptionColumn,
    Device,
    Epochs,
    Json,
    LearningRate,
    ManyData,
    ModelArgument,
    OnErrors,
    OutputDir,
    Overwrite,
    PresetName,
    Resume,
    Rows,
    Sets,
    SizeOfBatch,
    SpecPrecision,
    SpecSeed,
    Target,
    Triggers,
)
from rvpt.cli.panels import ATTACKING
from rvpt.cli.settings import divide, gather
from rvpt.cli.tables import show_rows
from rvpt.presets import choose_preset
from rvpt.rows import append_rows, refuse_foreign


def _help() -> MoreHelp:
    from rvpt.attacks.backdoor import PRESETS, AttackSpec
    from rvpt.attacks.poison import PoisonSpec
    from rvpt.evasions import EVASIONS

    amounts = {
        name: f"default: {by_preset({preset: chosen[name] for preset, chosen in PRESETS.items()})}"
        for name in ("num_poisoned", "num_pairs")
    }
    schedules = {preset: chosen["train"] for preset, chosen in PRESETS.items()}
    texts = amounts | default_texts(AttackSpec, schedules, ("lr", "epochs", "batch_size", "precision", "seed"))
    texts["test_shift"] = SHIFT.text()
    texts["evade"] = "; ".join(f"{name}: {evasion.summary}" for name, evasion in EVASIONS.items())
    return MoreHelp(texts, [*describe(AttackSpec, schedules), *describe(PoisonSpec)])


@command(ATTACKING, _help)
def attack(
    model: ModelArgument,
    data: ManyData,
    target: Target,
    output_dir: OutputDir,
    trigger: Triggers = None,
    preset: PresetName = "auto",
    seed: SpecSeed = None,
    device: Device = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    num_poisoned: Annotated[
        int | None,
        typer.Option(min=1, help="Pairs to poison with each trigger.", rich_help_panel=TRAINING),
    ] = None,
    evade: Annotated[
        str | None,
        typer.Option(
            metavar="EVASION",
            help="Attacker who knows a defense: NAME or NAME:OPTION=VALUE,..., as in changes:weight=0.1.",
            rich_help_panel=TRAINING,
            autocompletion=EVASION.complete,
        ),
    ] = None,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: SizeOfBatch = None,
    precision: SpecPrecision = None,
    settings: Sets = None,
    num_pairs: Annotated[
        int | None, typer.Option(min=1, help="Image-caption pairs to fine-tune on.", rich_help_panel=DATA)
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data to poison.", rich_help_panel=DATA)] = "train",
    caption_column: CaptionColumn = None,
    on_error: OnErrors = "stop",
    test_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labeled data set to check the attack on.",
            show_default="the first --data",
            rich_help_panel=DATA,
        ),
    ] = None,
    test_split: Annotated[str, typer.Option(help="Split of the test data.", rich_help_panel=DATA)] = "test",
    test_shift: Annotated[
        str | None, SHIFT.option(help="Change the style of the test images first.", panel=DATA)
    ] = None,
    rows: Rows = None,
    as_json: Json = False,
) -> None:
    """Backdoor a CLIP: fine-tune it on poisoned captions; save the model, its triggers and the poisoned pairs."""
    from rvpt.attacks.backdoor import PRESETS, AttackSpec
    from rvpt.attacks.poison import PoisonSpec
    from rvpt.cli.models import load_suspect
    from rvpt.cli.trigger_option import find_trigger, split_options
    from rvpt.jobs.attacking import attack_and_save

    changes = gather(
        settings, num_poisoned=num_poisoned, lr=lr, epochs=epochs, batch_size=batch_size, precision=precision,
        seed=seed,
    )  # fmt: skip
    schedule, poisoning = divide(changes, AttackSpec, PoisonSpec)
    if rows:
        refuse_foreign(rows)
    clip = load_suspect(model, device)
    chosen = choose_preset(preset, clip.parameter_count())
    spec = AttackSpec(**{**PRESETS[chosen]["train"], **schedule})
    amount = {} if "poison_rate" in poisoning else {"num_poisoned": PRESETS[chosen]["num_poisoned"]}
    name, options = split_options(evade or "")
    triggers = [find_trigger(text, chosen, target, spec.seed) for text in trigger or ["badnet"]]
    with progress.bar("attack") as report:
        measured = attack_and_save(
            clip, data, output_dir, triggers, PoisonSpec(**{**amount, **poisoning, "seed": spec.seed}), spec,
            num_pairs=num_pairs or PRESETS[chosen]["num_pairs"], split=split, test=test_data or data[0],
            test_split=test_split, test_shift=test_shift, caption_column=caption_column, on_error=on_error,
            evade={"name": name, **options} if evade else None, resume=resume, overwrite=overwrite, report=report,
        )  # fmt: skip
    if rows:
        append_rows(rows, measured)
    show_rows(measured, as_json=as_json, title=f"backdoored model in {output_dir} (preset {chosen})")
    if not as_json:
        print("\n".join(verdict(measured)))
