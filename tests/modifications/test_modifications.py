"""Modifications of a cleaned model: each against its formula, and that the model itself is never changed."""

import math

import pytest
import torch
from torch import nn

from exported import head_for, prompts_for
from helpers import memory_data, random_clip
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.modifications import MODIFICATIONS
from rvpt.modifications.base import Material
from rvpt.modifications.finetune import LowRank, PromptedContrastive, cleaning_steps
from rvpt.modifications.prune import pruned
from rvpt.modifications.rounding import round_fp16, round_int8
from rvpt.training.contrastive import Contrastive

CLASSES = ("fox", "owl")
FACTS = {"images": 8, "spec": {"epochs": 2, "batch_size": 4}, "base_sha256": "0"}
QUICK = {"finetune": {"batch_size": 4}, "lora": {"batch_size": 4, "rank": 2}, "distill": {"epochs": 1, "batch_size": 4}}


@pytest.fixture
def suspect():
    return random_clip(seed=1)


@pytest.fixture
def pairs():
    return memory_data(8, labels=[0, 1] * 4, classes=CLASSES, captions=[["a fox"], ["an owl", "owl"]] * 4)


@pytest.fixture
def material(suspect, pairs):
    return Material(suspect, pairs)


@pytest.fixture
def model(clip):
    return Cleaned(clip, prompts_for(clip), facts=FACTS)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", MODIFICATIONS)
def test_a_modification_makes_another_model_and_leaves_the_first_as_it_is(name, model, material):
    before, rows = weights(model), {block: [part.clone() for part in kv] for block, kv in model.prefixes.items()}
    asked = model.clip.model.logit_scale.requires_grad
    made = MODIFICATIONS[name](model, material, **QUICK.get(name, {}))
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    assert all(torch.equal(a, b) for block, kv in model.prefixes.items() for a, b in zip(kv, rows[block], strict=True))
    assert model.clip.model.logit_scale.requires_grad == asked
    assert made.hash() != Cleaned(model.clip, model.prompts, own_weights=True).hash()
    assert isinstance(made, Clip if name == "distill" else Cleaned)
    assert not any(parameter.requires_grad for parameter in made.parameters()) or name not in QUICK
    again = MODIFICATIONS[name](model, material, **QUICK.get(name, {}))
    assert again.hash() == made.hash()
    pixels = material.pairs.pixels(torch.arange(3), 48)
    assert not torch.equal(made.encode_image(pixels), model.encode_image(pixels))


@pytest.mark.parametrize("name", ["int8", "fp16", "prune", "average", "finetune", "lora"])
def test_keys_and_values_do_not_follow_the_weights(name, model, material):
    """They are stored in an export; what changes the weights does not compute them again."""
    made = MODIFICATIONS[name](model, material, **QUICK.get(name, {}))
    for block, (key, value) in model.prefixes.items():
        change = {"int8": round_int8, "fp16": round_fp16}.get(name, lambda row: row)
        assert torch.equal(made.prefixes[block][0], change(key))
        assert torch.equal(made.prefixes[block][1], change(value))


def test_an_unknown_setting_is_refused(model, material):
    with pytest.raises(RvptError, match="temperature: unknown setting"):
        MODIFICATIONS["prune"](model, material, temperature=3)
    with pytest.raises(RvptError, match="unknown modification 'burn'"):
        MODIFICATIONS.find("burn")


# Rounding, pruning, averaging


def test_int8_is_rounded_per_row_as_in_the_formula():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    slow = torch.zeros(5, 7)
    for i, row in enumerate(weight.tolist()):
        scale = max(map(abs, row)) / 127
        for j, value in enumerate(row):
            slow[i, j] = scale * round(value / scale) if scale else 0.0
    torch.testing.assert_close(round_int8(weight), slow, atol=1e-6, rtol=1e-5)
    steps = round_int8(weight) / (weight.abs().amax(1, keepdim=True).clamp(min=1e-9) / 127)
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert torch.equal(round_int8(weight)[3], torch.zeros(7))


def test_fp16_is_what_half_precision_can_hold():
    weight = torch.randn(5, 7)
    assert torch.equal(round_fp16(weight), weight.to(torch.float16).float())


def test_rounding_leaves_biases_and_norms(model, material):
    made = MODIFICATIONS["int8"](model, material)
    for name, value in model.clip.named_parameters():
        same = torch.equal(dict(made.clip.named_parameters())[name], value)
        assert same == (value.ndim < 2), name


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_the_smallest_weights_of_a_matrix_become_zero(share):
    weight = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    found = pruned(weight, share)
    zero = found == 0
    assert zero.sum() == round(share * 54)
    assert torch.equal(found[~zero], weight[~zero])
    assert weight[zero].abs().max() <= weight[~zero].abs().min()


def test_pruning_is_of_linear_layers(model, material):
    made = MODIFICATIONS["prune"](model, material, share=0.5)
    shares = [(part.weight == 0).float().mean() for part in made.clip.modules() if isinstance(part, nn.Linear)]
    assert len(shares) > 20
    torch.testing.assert_close(torch.stack(shares), torch.full((len(shares),), 0.5), atol=1e-3, rtol=0)
    tables = [part.weight for part in made.clip.modules() if isinstance(part, nn.Embedding)]
    assert all((table != 0).all() for table in tables)


def test_averaging_is_between_the_two_models(model, suspect, material):
    made = MODIFICATIONS["average"](model, material, share=0.25)
    for name, value in made.clip.named_parameters():
        ours, theirs = (dict(one.named_parameters())[name] for one in (model.clip, suspect))
        torch.testing.assert_close(value, 0.75 * ours + 0.25 * theirs)


def test_averaging_with_itself_changes_nothing(model, pairs):
    made = MODIFICATIONS["average"](model, Material(model.clip, pairs))
    pixels = pairs.pixels(torch.arange(3), 48)
    torch.testing.assert_close(made.encode_image(pixels), model.encode_image(pixels))


# Fine-tuning


def test_the_steps_are_a_multiple_of_those_of_the_cleaning(model, suspect, pairs):
    assert cleaning_steps(model) == 2 * math.ceil(8 / 4)
    seen = []
    material = Material(suspect, pairs, lambda step, total, values: seen.append((step, total)))
    MODIFICATIONS["finetune"](model, material, times=1.3, batch_size=4)
    assert seen[-1] == (6, 6)


def test_a_model_that_does_not_tell_its_training_is_not_fine_tuned(clip, material):
    with pytest.raises(RvptError, match="does not tell how it was trained"):
        MODIFICATIONS["finetune"](Cleaned(clip), material)


def test_the_loss_is_infonce_of_the_prompted_features(model, pairs):
    task, plain = PromptedContrastive(model, pairs), Contrastive(model.clip, pairs)
    indices, generator = torch.arange(4), torch.Generator().manual_seed(0)
    loss = task(indices, torch.Generator().manual_seed(0), 0.0)["loss"]
    pixels, texts = plain.draw(indices, generator)
    torch.testing.assert_close(loss, plain.paired(model.encode_image(pixels), *plain.encode_different(texts)))


def test_a_head_is_fine_tuned_on_labels(clip, pairs, material):
    head = head_for(clip)
    model = Cleaned(clip, head=head, facts=FACTS)
    task = PromptedContrastive(model, pairs)
    loss = task(torch.arange(4), torch.Generator().manual_seed(0), 0.0)["loss"]
    features = model.encode_image(pairs.pixels(torch.arange(4), 48))
    logits = model.logit_scale * features @ model.class_features(CLASSES).T
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])))
    made = MODIFICATIONS["finetune"](model, material, batch_size=4)
    assert torch.equal(made.head.rows, head.rows)


def test_low_rank_updates_are_of_that_rank_and_are_merged(model, material):
    made = MODIFICATIONS["lora"](model, material, batch_size=4, rank=2)
    changed = {}
    for name, value in model.clip.named_parameters():
        change = dict(made.clip.named_parameters())[name] - value
        if change.abs().max() > 0:
            changed[name] = torch.linalg.matrix_rank(change, atol=1e-6).item()
    assert set(changed.values()) == {2}
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    assert made.clip.state_dict().keys() == model.clip.state_dict().keys()


def test_a_low_rank_update_starts_at_the_weight():
    weight = torch.randn(6, 4)
    update = LowRank(weight, 2, torch.Generator().manual_seed(0))
    assert torch.equal(update(weight), weight)
    with torch.no_grad():
        update.up.normal_()
    torch.testing.assert_close(update(weight), weight + update.up @ update.down)
