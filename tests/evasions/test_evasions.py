"""Attackers who know a defense: each loss against its formula, and that the backdoor is still trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers import assert_near, memory_data, random_clip
from rvpt.attacks.backdoor import AttackSpec, backdoor
from rvpt.attacks.evasion import Evading
from rvpt.attacks.poison import Poison, PoisonSpec, poison_pairs
from rvpt.attacks.trigger import make_trigger, trigger_spec
from rvpt.errors import RvptError
from rvpt.evasions import EVASIONS, evasion
from rvpt.models.clip import Clip
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.losses import feature_repelling, info_nce, resist

CLASSES = ("sea lion", "owl", "fox")
DATA = memory_data(24, [i % 3 for i in range(24)], CLASSES, [[f"image {i}"] for i in range(24)])
SMALL: dict[str, dict[str, Any]] = {
    "prompts": {"prompt_length": 2, "images": 3, "weight": 0.5},
    "changes": {"images": 4, "weight": 0.5},
}
SPEC = AttackSpec(epochs=2, batch_size=8, lr=1e-3)


def poisons() -> dict[str, Poison]:
    return {"badnet": Poison(make_trigger(trigger_spec("badnet", target="owl"), 48), PoisonSpec(num_poisoned=3))}


def task_of(name: str) -> tuple[Evading, Clip]:
    """A task, whose model has moved away from the clean one, and the clean model."""
    clean, victim = random_clip(seed=1), random_clip(seed=2).requires_grad_(True)
    task = evasion(name, **SMALL[name]).task(victim, poison_pairs(DATA, poisons())[0], DATA, CLASSES, ["owl"])
    task.before.module = clean
    with torch.no_grad():
        task.text_before = clean.class_features(CLASSES)
    return task, clean


def gradients(task: Evading) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("name", EVASIONS)
def test_a_model_with_an_evasion_differs_and_resumes_to_the_same(name: str, clip: Clip, tmp_path: Any) -> None:
    before = clip.hash()
    known = evasion(name, **SMALL[name])
    made = backdoor(clip, DATA, poisons(), SPEC, classes=CLASSES, evasion=known)
    assert clip.hash() == before
    assert made.facts["evasion"] == {"name": name, **known.model_dump()}
    assert made.clip.hash() != backdoor(clip, DATA, poisons(), SPEC).clip.hash()

    def stop(step: int, total: int, values: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def run(**options: Any) -> Any:
        checkpoint = Checkpoint(tmp_path / "run", {}, resume=True)
        return backdoor(clip, DATA, poisons(), SPEC, classes=CLASSES, evasion=known, checkpoint=checkpoint, **options)

    with pytest.raises(KeyboardInterrupt):
        run(report=stop)
    assert run().clip.hash() == made.clip.hash()


def test_prompts_and_model_are_each_trained_by_their_own_losses() -> None:
    """The slow twin differentiates InfoNCE for the model, with prompts as numbers, and RVPT's loss for the prompts."""
    task, clean = task_of("prompts")
    indices, generator = torch.arange(8), torch.Generator().manual_seed(0)
    task(indices, generator, 0.0)["loss"].backward()
    found = gradients(task)
    victim, prompts = task.clip, task.prompts
    pixels, texts = task.draw(indices, torch.Generator().manual_seed(0))
    text = victim.encode_text(texts)

    def encoded(images: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, rows = victim.embed(images), []
        for number, layer in enumerate(victim.blocks):
            length = tokens.shape[1]
            if number >= prompts.first_block:
                own = table[number - prompts.first_block].expand(len(tokens), -1, -1)
                tokens = torch.cat([tokens, own], 1)
            out = layer(tokens, attention_mask=None)
            tokens = (out[0] if isinstance(out, tuple) else out)[:, :length]
            rows.append(tokens[:, 0])
        return victim.project(tokens[:, 0]), torch.stack(rows[prompts.first_block :], 1)

    same = torch.eye(8, dtype=torch.bool)
    table = prompts.table.detach()
    loss = info_nce(victim.encode_image(pixels), text, victim.logit_scale, same)
    loss = loss + 0.5 * info_nce(encoded(pixels, table)[0], text, victim.logit_scale, same)
    model = {name: p for name, p in task.named_parameters() if name.startswith("clip.") and name in found}
    for (name, _), slope in zip(model.items(), torch.autograd.grad(loss, list(model.values())), strict=True):
        torch.testing.assert_close(found[name], slope, rtol=1e-3, atol=1e-7)  # biases of keys have none

    table.requires_grad_(True)
    images = DATA.pixels(indices[:3], 48)
    image, rows = encoded(images, table)
    with torch.no_grad():
        labels = (clean.encode_image(images) @ clean.class_features(CLASSES).T).argmax(1)
        plain = victim.run_blocks(victim.run_blocks(victim.embed(images), stop=2)[0], start=2)[1]
    logits = victim.logit_scale.detach() * image @ victim.class_features(CLASSES).detach().T
    own = F.cross_entropy(logits, labels) + 2.0 * feature_repelling(rows, plain)
    assert_near(found["prompts.table"], torch.autograd.grad(own, table)[0], 1e-4)


def test_changes_are_resisted_in_the_classes_of_the_clean_model() -> None:
    task, clean = task_of("changes")
    indices = torch.arange(8)
    values = task(indices, torch.Generator().manual_seed(0), 0.0)
    pixels = DATA.pixels(indices[:4], 48)
    with torch.no_grad():
        labels = (clean.encode_image(pixels) @ clean.class_features(CLASSES).T).argmax(1)
    drawn = torch.Generator().manual_seed(0)
    task.draw(indices, drawn)
    rolls = [form.draw(4, drawn) for form in task.resist.forms]
    parts = [
        form.apply(pixels[k : k + 1], task.resist.changes[k].detach(), roll[:, k : k + 1])[0]
        for k, (form, roll) in enumerate(zip(task.resist.forms, rolls, strict=True))
    ]
    victim = task.clip
    logits = victim.logit_scale * victim.encode_image(torch.cat(parts)) @ victim.class_features(CLASSES).T
    others = [victim.model.text_projection.weight, victim.model.logit_scale]
    assert torch.autograd.grad(values["resist"], others, retain_graph=True, allow_unused=True) == (None, None)
    assert_near(values["resist"].detach(), 0.5 * resist(logits, labels, torch.full((4,), 1)).detach())
    values["loss"].backward()
    before = [change.detach().clone() for change in task.resist.changes]
    for change in task.resist.changes:
        change.oppose()  # type: ignore[attr-defined]
    assert any(not torch.equal(one, other) for one, other in zip(before, task.resist.changes, strict=True))


def test_the_clean_model_stays_as_it_was_before_the_attack() -> None:
    victim = random_clip(seed=2).requires_grad_(True)
    task = evasion("changes").task(victim, DATA, DATA, CLASSES, ["owl"])
    known = task.before.module.hash()
    assert known == victim.hash()
    victim.model.visual_projection.weight.data.neg_()
    assert task.before.module.hash() == known


@pytest.mark.parametrize("name", EVASIONS)
@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("cat", "dog"), "the target 'owl' is not one of the classes: choose from cat, dog"),
        (("owl", "Owl", "fox"), "classes 'owl' and 'Owl' have the same name"),
        ("owl", "classes='owl' is not a list of texts"),
    ],
)
def test_classes_that_do_not_fit_are_refused(name: str, classes: Any, words: str, clip: Clip) -> None:
    with pytest.raises(RvptError, match=words):
        backdoor(clip, DATA, poisons(), SPEC, classes=classes, evasion=evasion(name, **SMALL[name]))


def test_what_an_evasion_lacks_is_refused(clip: Clip) -> None:
    with pytest.raises(RvptError, match="names of all classes"):
        backdoor(clip, DATA, poisons(), SPEC, evasion=evasion("changes"))
    with pytest.raises(RvptError, match="names of all classes"):
        backdoor(clip, DATA, poisons(), SPEC, classes=["owl"], evasion=evasion("changes"))
    with pytest.raises(RvptError, match="an evasion needs a trigger"):
        backdoor(clip, DATA, {}, SPEC, classes=CLASSES, evasion=evasion("changes"))
    with pytest.raises(RvptError, match="first_block=9 does not exist"):
        backdoor(clip, DATA, poisons(), SPEC, classes=CLASSES, evasion=evasion("prompts", first_block=9))
    with pytest.raises(RvptError, match="unknown evasion 'x': choose from prompts, changes"):
        evasion("x")
