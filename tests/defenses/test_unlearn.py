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
from helpers import MakeClip, assert_near, random_pixels
from rvpt import Dataset
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import clean
from rvpt.defenses.rvpt import PromptTuning, RVPTSpec
from rvpt.defenses.suspects import most_suspicious
from rvpt.defenses.terms import Keep, Resist
from rvpt.defenses.tuning import Tuning
from rvpt.defenses.unlearn import BlockTuning, UnlearnPromptsSpec, UnlearnSpec, terms
from rvpt.errors import RvptError
from rvpt.inversion import FORMS
from rvpt.inversion.ball import Ball
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.loop import fit, frozen

SHORT = {"epochs": 2, "batch_size": 16, "lr": 1e-3, "first_block": 2}
TARGETS = ("heart", "snowflake")
KINDS = {"unlearn": {}, "unlearn-prompts": {"prompt_length": 5, "init_std": 0.5}}
every = pytest.mark.parametrize("kind", KINDS)


def spec_of(kind: str = "unlearn", **changes: Any) -> Any:
    return DEFENSES[kind].Spec(**{**SHORT, **KINDS[kind], "targets": TARGETS, "suspects": 2, **changes})


def task_of(clip: Clip, data: Dataset, spec: Any) -> Tuning:
    tuning = BlockTuning if isinstance(spec, UnlearnSpec) else PromptTuning
    return tuning(clip, data, spec, terms(clip, data, spec))


@every
@pytest.mark.parametrize("first_block", [0, 2])
@pytest.mark.parametrize("forms", [("additive",), tuple(FORMS)], ids=len)
def test_a_step_agrees_with_its_slow_twin(
    kind: str, first_block: int, forms: tuple[str, ...], make_clip: MakeClip, scenes: Dataset
) -> None:
    clip = make_clip(width=30, heads=3, text_width=30)
    spec = spec_of(kind, first_block=first_block, forms=forms, keep=0.7, resist=1.3, alpha=0.5)
    with frozen(clip):
        task = task_of(clip, scenes, spec)
        picked = torch.tensor([40, 3, 17, 4, 11, 30, 2, 25, 9])
        keeping(task).right[picked[:5]] = 1.0  # a random model gets few images right
        trained = [p for p in task.parameters() if p.requires_grad]
        for number, parameter in enumerate(trained):  # weights start at the suspect's, where keep is zero
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.data += 0.05 * noise
        fast = task(picked, torch.Generator().manual_seed(2), 0.0)
        slow = slow_step(task, clip, scenes, spec, picked)
        for name, value in slow.items():
            assert_near(fast[name], value)
        for pair in zip(*(torch.autograd.grad(losses["loss"], trained) for losses in (fast, slow)), strict=True):
            if not is_bias_of_keys(pair[1]):
                assert_near(*pair, tolerance=3e-5)


def is_bias_of_keys(gradient: Tensor) -> bool:
    """Attention does not depend on the bias of keys, so its gradient is rounding alone."""
    return bool(gradient.abs().max() < 1e-5)


def keeping(task: Tuning) -> Keep:
    (term,) = (term for term in task.terms if isinstance(term, Keep))
    return term


def resisting(task: Tuning) -> Resist:
    (term,) = (term for term in task.terms if isinstance(term, Resist))
    return term


def slow_step(task: Tuning, clip: Clip, data: Dataset, spec: Any, picked: Tensor) -> dict[str, Tensor]:
    """All losses of a step, image by image, every pass from the images or from mixed tokens on."""
    term, tau, first = resisting(task), clip.logit_scale, spec.first_block
    pixels, labels = data.pixels(picked, clip.image_size), data.labeled()[picked].tolist()
    text = clip.encode_text([spec.template.format(name) for name in data.classes])

    def encode(shown: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(task, PromptTuning):
            return reference.prompted(clip, task.prompts.blocks, task.prompts.table, shown)
        return reference.prompted(task.victim, range(first, first), torch.zeros(0, 1, 1), shown, first)

    image, rows = encode(pixels)
    _, frozen_rows = reference.frozen(clip, pixels, first)
    values = {
        "CE": reference.classification(image, text, tau, labels),
        "FR": reference.feature_repelling(rows, frozen_rows, spec.margin),
    }
    drawing = torch.Generator().manual_seed(2)
    drawn = [form.draw(len(picked), drawing) for form in term.forms]
    values["resist"] = torch.zeros(())
    for number, target in enumerate(spec.targets):
        scores = []
        for index in range(len(picked)):
            form = index % len(term.forms)
            change, own = term.changes[form][number : number + 1], slice(index, index + 1)
            shown = term.forms[form].apply(pixels[own], change, drawn[form][:, own])[0]
            scores.append(tau * encode(shown)[0][0] @ text.T)
        towards = [data.class_index(target)] * len(picked)
        values["resist"] = values["resist"] + reference.resist(torch.stack(scores), labels, towards)
    tokens, right = reference.frozen(clip, pixels, first)[0], keeping(task).right[picked]
    mixed = torch.stack([(tokens[index] + tokens[index - 1]) / 2 for index in range(len(picked))])
    suspect = clip.project(clip.run_blocks(mixed, start=first)[0][:, 0])
    weights = [float(right[index] * right[index - 1]) for index in range(len(picked))]
    values["keep"] = reference.keep(tau * task.encode(mixed)[0] @ text.T, tau * suspect @ text.T, weights)
    loss = values["CE"] + spec.alpha * values["FR"] + spec.keep * values["keep"] + spec.resist * values["resist"]
    return {**values, "loss": loss}


def test_without_its_terms_it_is_prompt_tuning_to_the_bit(clip: Clip, scenes: Dataset) -> None:
    settings = {**SHORT, "prompt_length": 2, "alpha": 0.5, "optimizer": "adamw"}
    ours = clean(clip, scenes, UnlearnPromptsSpec(**settings, keep=0.0, resist=0.0))
    theirs = clean(clip, scenes, RVPTSpec(**settings))
    assert ours.hash() == theirs.hash()
    assert ours.facts["history"] == theirs.facts["history"]


@every
@pytest.mark.parametrize("form", FORMS)
def test_changes_move_within_their_budget_and_the_suspect_stays(
    kind: str, form: str, clip: Clip, scenes: Dataset
) -> None:
    before, spec = clip.hash(), spec_of(kind, forms=(form,), epochs=1)
    with frozen(clip):
        task = task_of(clip, scenes, spec)
        first = [changes.detach().clone() for changes in resisting(task).changes]
        fit(task, len(scenes), spec)
    assert clip.hash() == before
    for form, start, changes in zip(resisting(task).forms, first, resisting(task).changes, strict=True):
        assert not torch.equal(start, changes)
        shown = form.apply(scenes.pixels(torch.arange(4), clip.image_size), changes, form.draw(4, torch.Generator()))
        assert shown.min() >= 0
        assert shown.max() <= 1
        if isinstance(form, Ball):
            assert changes.flatten(1).norm(dim=1).max() <= form.limit * (1 + 1e-5)


def test_a_moved_change_raises_the_loss_of_frozen_prompts(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(forms=("additive",), keep=0.0, alpha=0.0, budget=20.0))
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


@every
@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_run_continues_to_the_same_bits(
    kind: str, stop: int, clip: Clip, scenes: Dataset, tmp_path: Path
) -> None:
    def interrupt(step: int, total: int, values: Any) -> None:
        if step == stop:
            raise KeyboardInterrupt

    spec = spec_of(kind, forms=("additive", "patch"))
    whole = clean(clip, scenes, spec)
    with pytest.raises(KeyboardInterrupt):
        clean(clip, scenes, spec, checkpoint=Checkpoint(tmp_path / "run"), report=interrupt)
    resumed = clean(clip, scenes, spec, checkpoint=Checkpoint(tmp_path / "run", resume=True))
    assert resumed.hash() == whole.hash()
    assert resumed.facts["history"] == whole.facts["history"]


def test_a_continued_run_keeps_the_targets_of_its_changes(
    clip: Clip, scenes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU a second scan may rank classes that are nearly equal in another order."""

    def interrupt(step: int, total: int, values: Any) -> None:
        raise KeyboardInterrupt

    def scanned(target: int) -> Any:
        return lambda forms, *_: (torch.tensor([target]), [form.start(1) for form in forms])

    spec, run = spec_of(targets=(), suspects=1, forms=("additive",)), tmp_path / "run"
    monkeypatch.setattr("rvpt.defenses.unlearn.scan", scanned(1))
    whole = clean(clip, scenes, spec)
    with pytest.raises(KeyboardInterrupt):
        clean(clip, scenes, spec, checkpoint=Checkpoint(run), report=interrupt)
    monkeypatch.setattr("rvpt.defenses.unlearn.scan", scanned(2))
    resumed = clean(clip, scenes, spec, checkpoint=Checkpoint(run, resume=True))
    assert resumed.facts["resisted_targets"] == whole.facts["resisted_targets"] == [scenes.classes[1]]
    assert resumed.hash() == whole.hash()


def test_targets_are_found_by_name_and_others_are_refused(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(targets=("Heart", "snowman")))
    assert [scenes.classes[index] for index in resisting(task).targets.tolist()] == ["heart", "snowman"]
    with pytest.raises(RvptError, match=r"targets: there are no clean images of class 'unicorn': choose from umbrella"):
        clean(clip, scenes, spec_of(targets=("unicorn",)))
    with frozen(clip):
        twice = task_of(clip, scenes, spec_of(targets=("Heart", "heart"), forms=("additive",)))
    assert resisting(twice).targets.tolist() == [scenes.class_index("heart")]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_the_budget_of_the_settings(name: str) -> None:
    none, usual = (
        spec_of(forms=(name,), **budgets).inversion(0)
        for budgets in ({"budget": 0, "wave_budget": 0, "amplitude": 0, "warp_budget": 0, "patch_size": 7.0}, {})
    )
    pixels = random_pixels(2, 32)
    little, much = (_moved(FORMS[name].of(spec, 32), pixels) for spec in (none, usual))
    assert little < much


def _moved(form: Form, pixels: Tensor) -> float:
    """How far pixels move, on average, after a step of full length."""
    start = form.library()[:1] if len(form.library()) else form.start(1)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    change = form.step(start, form.direction(noise), 1.0)
    drawn = form.draw(len(pixels), torch.Generator().manual_seed(0))
    return float((form.apply(pixels, change, drawn)[0] - pixels).abs().mean())


def test_gratings_start_at_waves_of_their_library(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        term = resisting(task_of(clip, scenes, spec_of(forms=("grating",))))
    library = term.forms[0].library()
    assert all((change == library).all(1).any() for change in term.changes[0])


def test_without_targets_a_scan_keeps_the_most_suspicious_classes(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(targets=(), suspects=2, forms=("additive",)))
    found = resisting(task).targets.tolist()
    assert len(set(found)) == 2
    assert len(resisting(task).changes[0]) == 2


@every
def test_the_first_suspected_target_is_used_and_recorded(kind: str, clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes, spec_of(kind, suspects=1, epochs=1, forms=("additive",)))
    assert cleaned.facts["resisted_targets"] == ["heart"]


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
