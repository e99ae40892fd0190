"""Adversarial unlearning: a step against its slow twin, its changes, its targets, and runs that are interrupted."""

from __future__ import annotations

import itertools
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
from rvpt.data.dataset import sample_indices
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Run, clean, defense_of
from rvpt.defenses.few_shot import FewShot
from rvpt.defenses.rvpt import PromptTuning, RVPTSpec
from rvpt.defenses.terms import Keep, Resist
from rvpt.defenses.tuning import Tuning
from rvpt.defenses.unlearn import UnlearnPromptsSpec, UnlearnSpec
from rvpt.errors import RvptError
from rvpt.inversion import FORMS
from rvpt.inversion.ball import Ball
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.models.clip import Clip
from rvpt.models.encode import encode_set
from rvpt.tensors import read_metadata, read_tensors, write_tensors
from rvpt.training.checkpoint import STATE, Checkpoint
from rvpt.training.loop import fit, frozen

SHORT = {"epochs": 2, "batch_size": 16, "lr": 1e-3, "first_block": 2}
TARGETS = ("heart", "snowflake")
KINDS = {"unlearn": {}, "unlearn-prompts": {"prompt_length": 5, "init_std": 0.5}}
every = pytest.mark.parametrize("kind", KINDS)


def spec_of(kind: str = "unlearn", **changes: Any) -> Any:
    return DEFENSES[kind].Spec(**{**SHORT, **KINDS[kind], "targets": TARGETS, **changes})


def task_of(clip: Clip, data: Dataset, spec: Any, run: Run | None = None) -> Tuning:
    kind: Any = defense_of(spec)
    task: Tuning = kind.task(clip, data, spec, run or Run())
    return task


@every
@pytest.mark.parametrize("first_block", [0, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"forms": ("additive",), "labels": "predicted", "head": True},
        {"forms": tuple(FORMS)},
        {"forms": tuple(FORMS), "per_image": 2},
    ],
    ids=["head, without labels", "all forms", "two per image"],
)
def test_a_step_agrees_with_its_slow_twin(
    kind: str, first_block: int, settings: dict[str, Any], make_clip: MakeClip, scenes: Dataset
) -> None:
    clip = make_clip(width=30, heads=3, text_width=30)
    spec = spec_of(kind, first_block=first_block, keep=0.7, resist=1.3, alpha=0.5, **settings)
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
    suspected = torch.stack([tau * clip.encode_image(image[None])[0] @ text.T for image in pixels])
    if spec.labels == "predicted":
        labels = suspected.argmax(1).tolist()

    class_rows = F.pad(text, (0, 1)) if task.class_rows is None else task.class_rows

    def classify(features: Tensor) -> Tensor:
        return tau * torch.stack([features @ row[:-1] + row[-1] for row in class_rows], 1)

    def encode(shown: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(task, PromptTuning):
            return reference.prompted(clip, task.prompts.blocks, task.prompts.table, shown)
        return reference.prompted(task.victim, range(first, first), torch.zeros(0, 1, 1), shown, first)

    image, rows = encode(pixels)
    _, frozen_rows = reference.frozen(clip, pixels, first)
    scored = classify(image)
    name, loss = "CE", torch.stack([reference.cross_entropy(*pair) for pair in zip(scored, labels, strict=True)]).mean()
    if spec.labels == "predicted":
        name, loss = "KL", reference.keep(scored, suspected)
    values = {name: loss, "FR": reference.feature_repelling(rows, frozen_rows, spec.margin)}
    drawing = torch.Generator().manual_seed(2)
    drawn = [form.draw(len(picked), drawing) for form in term.forms]
    values["resist"] = torch.zeros(())
    for number, target in enumerate(spec.targets):
        scores, truth = [], []
        for index, turn in itertools.product(range(len(picked)), range(spec.per_image)):
            form = (index - turn) % len(term.forms)
            change, own = term.changes[form][number : number + 1], slice(index, index + 1)
            shown = term.forms[form].apply(pixels[own], change, drawn[form][:, own])[0]
            scores.append(classify(encode(shown)[0])[0])
            truth.append(labels[index])
        towards = [data.class_index(target)] * len(scores)
        values["resist"] = values["resist"] + reference.resist(torch.stack(scores), truth, towards)
    tokens, right = reference.frozen(clip, pixels, first)[0], keeping(task).right[picked]
    mixed = torch.stack([(tokens[index] + tokens[index - 1]) / 2 for index in range(len(picked))])
    suspect = clip.project(clip.run_blocks(mixed, start=first)[0][:, 0])
    weights = [float(right[index] * right[index - 1]) for index in range(len(picked))]
    values["keep"] = reference.keep(classify(task.encode(mixed)[0]), tau * suspect @ text.T, weights)
    loss = loss + spec.alpha * values["FR"] + spec.keep * values["keep"] + spec.resist * values["resist"]
    return {**values, "loss": loss}


def test_predictions_of_one_class_are_warned_of(clip: Clip, scenes: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    same = replace(scenes, labels=None).select(torch.zeros(8, dtype=torch.int64))
    with frozen(clip):
        task_of(clip, same, spec_of(labels="predicted", resist=0.0))
    assert "classifies 100% of the images as" in caplog.text
    with pytest.raises(RvptError, match="pass a list of class names"):
        clean(clip, scenes, "unlearn", classes="names.txt")


@every
def test_names_that_the_model_does_not_know_are_warned_of(
    kind: str, clip: Clip, scenes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(kind, resist=0.0, head=True))
        task_of(clip, replace(scenes, labels=task.predictions), spec_of(kind, resist=0.0, targets=()))
        assert not caplog.text
        task_of(clip, scenes, spec_of(kind, resist=0.0))
    share = 100 * (task.predictions == task.labels).float().mean()
    assert f"is right on only {share:.0f}% of the labeled images" in caplog.text


@pytest.mark.parametrize("share", [0.75, 0.9])
def test_labels_decide_where_nearly_all_images_are_taken_for_one_class(
    share: float, clip: Clip, scenes: Dataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(scenes)
    taken = (torch.arange(count) >= share * count).long()
    monkeypatch.setattr(Tuning, "predictions", taken)
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(forms=("additive",)))
        pool = FewShot(clip, scenes, task.names, task.text, task.labels, taken).pool(count, seed=3)
    own = task.labels if share > 0.8 else taken
    assert torch.equal(pool.predictions, own[sample_indices(count, count, 3)])
    assert ("these images may act as a trigger" in caplog.text) == (share > 0.8)


def test_without_labels_a_model_that_is_still_the_suspect_agrees_on_augmented_images(
    clip: Clip, scenes: Dataset
) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(labels="predicted", resist=0.0, augment="crop-flip"))
        values = task(torch.arange(6), torch.Generator().manual_seed(0), 0.0)
    assert values["KL"].item() == pytest.approx(0.0, abs=1e-5)


def test_labels_are_not_used_where_the_classes_are_given_as_a_list(clip: Clip, scenes: Dataset) -> None:
    settings = {**SHORT, "epochs": 1, "forms": ("additive",), "targets": TARGETS}
    images = list(scenes.pixels(torch.arange(len(scenes)), clip.image_size))
    first, *rest = (
        clean(clip, data, "unlearn", classes=classes, **settings)
        for data, classes in (
            (scenes, scenes.classes), (images, scenes.classes), (replace(scenes, labels=None), None),
        )
    )  # fmt: skip
    assert {cleaned.hash() for cleaned in rest} == {first.hash()}
    assert first.facts["spec"]["labels"] == "predicted"
    assert first.facts["classes"] == list(scenes.classes)
    assert clip.hash() == first.facts["base_sha256"] != first.hash()


def test_a_class_without_an_image_may_be_the_target_of_images_without_labels(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = task_of(clip, replace(scenes.only(["sun", "moon"]), labels=None), spec_of(labels="predicted"))
    assert [task.names[index] for index in resisting(task).targets.tolist()] == list(TARGETS)
    assert keeping(task).right.all()


@pytest.mark.parametrize(
    ("defense", "labeled", "options", "message"),
    [
        (
            "rvpt",
            False,
            {},
            r"no class labels: .* defense that needs none \(unlearn-prompts, unlearn\), .* classes=",
        ),
        (
            "probe",
            True,
            {"classes": ["a", "b"]},
            "probe learns from labels and takes no list of classes: ",
        ),
        ("par", True, {"classes": ["a", "b"]}, "par learns from captions and takes no list of classes"),
        ("unlearn", False, {"classes": ["a"]}, "has 1 class name, at least two are needed: give them as classes=FILE"),
        ("unlearn", False, {"labels": "given"}, "labels=given: there are none to use: pass labels=predicted"),
    ],
)
def test_images_without_labels_are_refused_where_they_do_not_fit(
    defense: str, labeled: bool, options: dict[str, Any], message: str, clip: Clip, scenes: Dataset
) -> None:
    with pytest.raises(RvptError, match=message):
        clean(clip, scenes if labeled else replace(scenes, labels=None), defense, **options)


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


def test_forms_that_a_small_batch_does_not_show_have_a_gradient_and_stay(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(forms=tuple(FORMS), targets=TARGETS[:1]))
        before = [change.detach().clone() for change in resisting(task).changes]
        task(torch.tensor([3, 4]), torch.Generator().manual_seed(0), 0.0)["loss"].backward()
    assert all(change.grad is not None for change in resisting(task).changes)  # or several processes would hang
    for change in resisting(task).changes:
        change.oppose()
    moved = [not torch.equal(*pair) for pair in zip(before, resisting(task).changes, strict=True)]
    assert not any(moved[2:])
    assert any(moved[:2])


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
        if "loss" in values and step == stop:
            raise KeyboardInterrupt

    spec = spec_of(kind, forms=("additive", "patch"), head=stop == 4)
    whole = clean(clip, scenes, spec)
    with pytest.raises(KeyboardInterrupt):
        clean(clip, scenes, spec, checkpoint=Checkpoint(tmp_path / "run"), report=interrupt)
    resumed = clean(clip, scenes, spec, checkpoint=Checkpoint(tmp_path / "run", resume=True))
    assert resumed.hash() == whole.hash()
    assert resumed.facts["history"] == whole.facts["history"]


def test_a_run_that_continues_does_not_scan_again(
    clip: Clip, scenes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: int, total: int, values: Any) -> None:
        if "loss" in values:
            raise KeyboardInterrupt

    def scanned(target: int) -> Any:
        return lambda forms, *_: (torch.tensor([target]), [form.start(1) for form in forms])

    spec, run = spec_of(targets=(), forms=("additive",)), tmp_path / "run"
    monkeypatch.setattr("rvpt.defenses.changes.scan", scanned(1))
    whole = clean(clip, scenes, spec)
    with pytest.raises(KeyboardInterrupt):
        clean(clip, scenes, spec, checkpoint=Checkpoint(run), report=interrupt)

    def refuse(*_: Any) -> Any:
        raise AssertionError("it scans again")

    monkeypatch.setattr("rvpt.defenses.changes.scan", refuse)
    resumed = clean(clip, scenes, spec, checkpoint=Checkpoint(run, resume=True))
    assert resumed.facts["resisted_targets"] == whole.facts["resisted_targets"] == [scenes.classes[1]]
    assert resumed.hash() == whole.hash()
    monkeypatch.setattr("rvpt.defenses.changes.scan", scanned(2))
    with frozen(clip):  # a new run scans
        task = task_of(clip, scenes, spec, Run(Checkpoint(run)))
    assert resisting(task).targets.tolist() == [2]


@pytest.mark.parametrize("damage", ["missing", "more", "shape"])
def test_the_state_of_another_version_is_refused(damage: str, clip: Clip, scenes: Dataset, tmp_path: Path) -> None:
    def interrupt(step: int, total: int, values: Any) -> None:
        if "loss" in values:
            raise KeyboardInterrupt

    spec, run = spec_of(forms=("additive",)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        clean(clip, scenes, spec, checkpoint=Checkpoint(run), report=interrupt)
    tensors, name = read_tensors(run / STATE), "buffer/terms.1.targets"
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name if damage == "shape" else "buffer/other"] = torch.zeros(7)
    write_tensors(run / STATE, tensors, read_metadata(run / STATE))
    with pytest.raises(
        RvptError, match=r"run holds a run of another version of rvpt \(buffer/\S+ differs\): continue it"
    ):
        clean(clip, scenes, spec, checkpoint=Checkpoint(run, resume=True))


def test_the_scan_reports_its_steps(clip: Clip, scenes: Dataset) -> None:
    seen = list[tuple[int, int, Any]]()
    with frozen(clip):
        task_of(clip, scenes, spec_of(targets=(), forms=("additive", "grating")), Run(report=lambda *a: seen.append(a)))
    steps = [(step, total) for step, total, values in seen if values == {"scan": "class changes"}]
    assert steps == [(step, 8 + 1 + 2) for step in range(1, 12)]


def test_images_are_encoded_once(clip: Clip, scenes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants of the task have what the terms and the pool of the first changes ask for."""
    reference = spec_of(forms=("additive",))
    with frozen(clip):
        task = task_of(clip, scenes, reference)
        features = encode_set(clip, scenes)
        monkeypatch.setattr("rvpt.defenses.tuning.encode_set", None)
        monkeypatch.setattr(Pool, "of", None)
        task_of(clip, scenes, reference)
    predictions = (features @ task.text.T).argmax(1)
    assert torch.equal(keeping(task).right, (predictions == scenes.labeled()).float())


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_what_the_suspect_gets_right_is_what_it_gets_right_without_changes(
    augment: str, clip: Clip, scenes: Dataset
) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(forms=("additive",), augment=augment))
        right = [
            int((clip.encode_image(scenes.pixels(index[None], clip.image_size)) @ task.text.T).argmax()) == label
            for index, label in zip(torch.arange(len(scenes)), scenes.labeled().tolist(), strict=True)
        ]
    assert keeping(task).right.tolist() == right


def test_targets_are_found_by_name_and_others_are_refused(clip: Clip, scenes: Dataset) -> None:
    with frozen(clip):
        task = task_of(clip, scenes, spec_of(targets=("Heart", "snowman")))
    assert [scenes.classes[index] for index in resisting(task).targets.tolist()] == ["heart", "snowman"]
    with pytest.raises(RvptError, match=r"targets: 'unicorn' is not a class of the clean images: choose from umbrella"):
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
def test_all_targets_that_are_given_are_used_and_recorded(kind: str, clip: Clip, scenes: Dataset) -> None:
    cleaned = clean(clip, scenes, spec_of(kind, suspects=1, epochs=1, forms=("additive",)))
    assert cleaned.facts["resisted_targets"] == cleaned.row_facts()["resisted_targets"] == list(TARGETS)


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
