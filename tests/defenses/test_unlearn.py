"""Adversarial unlearning: a step against its slow twin, its changes, its targets, and runs that are interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import reference
from helpers import MakeClip, assert_near
from rvpt import Dataset
from rvpt.defenses.base import clean
from rvpt.defenses.rvpt import PromptTuning, RVPTSpec
from rvpt.defenses.terms import Resist
from rvpt.defenses.unlearn import Unlearn, UnlearnSpec, most_suspicious
from rvpt.errors import RvptError
from rvpt.inversion import FORMS
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.loop import fit, frozen

SHORT = {"epochs": 2, "batch_size": 16, "lr": 1e-3, "first_block": 2, "prompt_length": 2}
TARGETS = ("heart", "snowflake")


def spec_of(**changes: Any) -> UnlearnSpec:
    return UnlearnSpec(**{**SHORT, "targets": TARGETS, **changes})


@pytest.mark.parametrize("first_block", [0, 2])
@pytest.mark.parametrize("forms", [("additive",), ("additive", "waves", "warp", "patch")], ids=len)
def test_a_step_agrees_with_its_slow_twin(
    first_block: int, forms: tuple[str, ...], make_clip: MakeClip, scenes: Dataset
) -> None:
    clip = make_clip(width=30, heads=3, text_width=30)
    spec = spec_of(first_block=first_block, forms=forms, keep=0.7, resist=1.3, alpha=0.5, init_std=0.5, prompt_length=5)
    with frozen(clip):
        task = Unlearn.task(clip, scenes, spec)
        picked = torch.tensor([40, 3, 17, 4, 11, 30, 2, 25, 9])
        fast = task(picked, torch.Generator().manual_seed(2), 0.0)
        slow = slow_step(task, clip, scenes, spec, picked)
        table = task.prompts.table
        for name, value in slow.items():
            assert_near(fast[name], value)
        trained = [table, *resisting(task).changes]
        for pair in zip(*(torch.autograd.grad(losses["loss"], trained) for losses in (fast, slow)), strict=True):
            assert_near(*pair)


def resisting(task: PromptTuning) -> Resist:
    (term,) = (term for term in task.terms if isinstance(term, Resist))
    return term


def slow_step(task: PromptTuning, clip: Clip, data: Dataset, spec: UnlearnSpec, picked: Tensor) -> dict[str, Tensor]:
    """All losses of a step, image by image: prompts as tokens, every pass from the images or from mixed tokens on."""
    term, blocks, table, tau = resisting(task), task.prompts.blocks, task.prompts.table, clip.logit_scale
    pixels, labels = data.pixels(picked, clip.image_size), data.labeled()[picked].tolist()
    text = clip.encode_text([spec.template.format(name) for name in data.classes])
    values = reference.losses(clip, blocks, table, pixels, text, labels, spec.alpha, spec.margin)
    generator, forms = torch.Generator().manual_seed(2), term.forms
    drawn = [form.draw(len(picked), generator) for form in forms]
    count = min(len(picked), len(forms) * len(spec.targets))
    scores, own, towards = [], [], []
    for index in range(len(picked)):
        number, form = divmod(index % count, len(forms))
        change = term.changes[form][number : number + 1]
        shown = forms[form].apply(pixels[index : index + 1], change, drawn[form][:, index : index + 1])[0]
        scores.append(tau * reference.prompted(clip, blocks, table, shown)[0][0] @ text.T)
        own.append(labels[index])
        towards.append(data.class_index(spec.targets[number]))
    values["resist"] = reference.resist(torch.stack(scores), own, towards)
    tokens, _ = reference.frozen(clip, pixels, blocks[0])
    mixed = torch.stack([(tokens[index] + tokens[index - 1]) / 2 for index in range(len(picked))])
    ends = (clip.run_blocks(mixed, start=blocks[0], prefixes=prefixes)[0] for prefixes in (task.prompts(clip), {}))
    ours, theirs = (tau * clip.project(tokens[:, 0]) @ text.T for tokens in ends)
    values["keep"] = reference.keep(ours, theirs)
    values["loss"] = values["loss"] + spec.keep * values["keep"] + spec.resist * values["resist"]
    return values


def test_without_its_terms_it_is_prompt_tuning_to_the_bit(clip: Clip, scenes: Dataset) -> None:
    settings = {**SHORT, "alpha": 0.5, "optimizer": "adamw"}
    ours = clean(clip, scenes, UnlearnSpec(**settings, keep=0.0, resist=0.0))
    theirs = clean(clip, scenes, RVPTSpec(**settings))
    assert ours.hash() == theirs.hash()
    assert ours.facts["history"] == theirs.facts["history"]


def test_changes_move_uphill_within_their_budget_and_the_suspect_stays(clip: Clip, scenes: Dataset) -> None:
    before = clip.hash()
    with frozen(clip):
        task = Unlearn.task(clip, scenes, spec_of())
        first = [changes.detach().clone() for changes in resisting(task).changes]
        fit(task, len(scenes), spec_of())
    assert clip.hash() == before
    for form, start, changes in zip(resisting(task).forms, first, resisting(task).changes, strict=True):
        assert not torch.equal(start, changes)
        if form.name == "patch":
            assert changes.min() >= 0
            assert changes.max() <= 1
        else:
            assert changes.flatten(1).norm(dim=1).max() <= form.limit * (1 + 1e-5)


def test_a_moved_change_raises_the_loss_of_frozen_prompts(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = Unlearn.task(clip, scenes, spec_of(forms=("additive",), keep=0.0, alpha=0.0, budget=20.0))
        term, every, generator = resisting(task), torch.arange(len(scenes)), torch.Generator()
        term.changes[0].data.zero_()
        seen = []
        for _ in range(4):
            values = task(every, generator, 0.0)
            seen.append(values["resist"].item())
            values["loss"].backward()
            term.changes[0].oppose()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_run_continues_to_the_same_bits(stop: int, clip: Clip, scenes: Dataset, tmp_path: Path) -> None:
    def interrupt(step: int, total: int, values: Any) -> None:
        if step == stop:
            raise KeyboardInterrupt

    whole = clean(clip, scenes, spec_of())
    with pytest.raises(KeyboardInterrupt):
        clean(clip, scenes, spec_of(), checkpoint=Checkpoint(tmp_path / "run"), report=interrupt)
    resumed = clean(clip, scenes, spec_of(), checkpoint=Checkpoint(tmp_path / "run", resume=True))
    assert resumed.hash() == whole.hash()
    assert resumed.facts["history"] == whole.facts["history"]


def test_targets_are_found_by_name_and_others_are_refused(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = Unlearn.task(clip, scenes, spec_of(targets=("Heart", "snowman")))
    assert [scenes.classes[index] for index in resisting(task).targets.tolist()] == ["heart", "snowman"]
    with pytest.raises(RvptError, match=r"targets: there are no clean images of class 'unicorn': choose from umbrella"):
        clean(clip, scenes, spec_of(targets=("unicorn",)))


def test_without_targets_a_scan_keeps_the_most_suspicious_classes(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = Unlearn.task(clip, scenes, spec_of(targets=(), suspects=2, forms=("additive",)))
    found = resisting(task).targets.tolist()
    assert len(set(found)) == 2
    assert len(resisting(task).changes[0]) == 2


def test_the_most_suspicious_class_is_reached_beyond_what_is_usual_for_a_form(clip: Clip, scenes: Dataset) -> None:
    """A text in the middle of all features is nearest to every image."""
    with frozen(clip), torch.no_grad():
        pixels = scenes.pixels(torch.arange(len(scenes)), clip.image_size)
        middle = F.normalize(clip.encode_image(pixels).mean(0), dim=0)
        around = F.normalize(
            middle + 0.3 * torch.randn(7, len(middle), generator=torch.Generator().manual_seed(0)), dim=1
        )
        text = torch.cat([around, middle[None]])
        pool = replace(Pool.of(clip, pixels, text), predictions=torch.zeros(len(pixels), dtype=torch.int64))
        forms = [FORMS[name].of(InversionSpec(), clip.image_size) for name in ("additive", "waves")]
        order = most_suspicious(forms, pool, [form.start(8) for form in forms], InversionSpec())
    assert order[0] == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forms": ("additive", "cloud")}, "unknown form of inversion 'cloud'"),
        ({"forms": ()}, "forms: give different forms, at least one"),
        ({"forms": ("patch", "patch")}, "forms: give different forms"),
        ({"keep": -1}, "keep: .*greater than or equal to 0"),
        ({"suspects": 0}, "suspects: .*greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        UnlearnSpec(**settings)
