"""Every defense: what it trains and leaves alone, the file format, and the losses against loops."""

import math

import pytest
import torch

from commands import refused, works
from helpers import random_pixels
from rvpt.attacks import TRIGGERS, trigger_spec
from rvpt.augment import jitter, noise_erase, shuffle_words
from rvpt.clip import OPENAI_MEAN
from rvpt.config import AttackSpec, FinetuneSpec, ParSpec, ProbeSpec
from rvpt.defenses import DEFENSES, Cleaned, clean, load_model
from rvpt.defenses.captions import CleanClip, ContrastiveTuning, PerturbRecover
from rvpt.defenses.finetune import TowerTuning
from rvpt.errors import RvptError
from rvpt.evaluation import measure
from rvpt.losses import perturbation, self_supervision
from rvpt.readers import load_data
from rvpt.store import read_manifest, sha256_tensors

SHORT = {"epochs": 1, "lr": 1e-3, "batch_size": 16}
PROMPTS = {"first_block": 2, "length": 2}
EXTRA = {"rvpt": PROMPTS, "vpt": PROMPTS, "finetune": {"alpha": 1.0}, "contrastive": {"alpha": 1.0}}
every = pytest.mark.parametrize("name", DEFENSES)


def short_spec(name, **options):
    return DEFENSES[name].Spec.build(**{**SHORT, **EXTRA.get(name, {}), **options})


def unit(*shape, seed=0):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


@every
def test_it_changes_the_answers_and_leaves_the_suspect(name, clip, scenes):
    before, pixels = clip.hash(), scenes.pixels(torch.arange(6), clip.image_size)
    cleaned = clean(clip, scenes, short_spec(name, lr=0.05))
    assert clip.hash() == before
    with torch.no_grad():
        answers, theirs = (
            model.encode_image(pixels) @ model.class_features(scenes.classes).T for model in (cleaned, clip)
        )
    assert torch.isfinite(answers).all()
    assert not torch.allclose(answers, theirs, atol=1e-4)
    assert cleaned.facts["defense"] == name
    assert cleaned.trained_parameters > 0


@every
def test_saved_and_loaded_it_is_the_same_model(name, tiny, scenes, tmp_path):
    suspect = load_model(tiny.backdoored)
    cleaned = clean(suspect, scenes, short_spec(name))
    cleaned.save_pretrained(tmp_path / "cleaned")
    loaded = load_model(tmp_path / "cleaned")
    pixels = scenes.pixels(torch.arange(6), suspect.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(pixels), cleaned.encode_image(pixels), atol=1e-6, rtol=0)
        for model in (loaded, cleaned):
            assert model.class_features(scenes.classes).shape[1] == model.encode_image(pixels).shape[1]
    assert loaded.hash() == cleaned.hash() != suspect.hash()
    loaded.save_pretrained(tmp_path / "copy")
    again = load_model(tmp_path / "copy")
    assert again.hash() == loaded.hash()
    assert again.row_facts() == loaded.row_facts()
    assert not any(parameter.requires_grad for parameter in loaded.prompts.parameters()) if loaded.prompts else True


@every
def test_the_same_seed_gives_the_same_bits(name, clip, scenes):
    first, again, other = (clean(clip, scenes, short_spec(name, seed=seed, lr=0.01)).hash() for seed in (0, 0, 1))
    assert first == again != other


@every
def test_the_command_writes_it_and_the_rows_name_it(name, tiny, tmp_path):
    options = ",".join(f"{key}={value}" for key, value in {**SHORT, **EXTRA.get(name, {})}.items())
    sets = ["--pairs", 40] if DEFENSES[name].captions else ["--shots", 1]
    out = tmp_path / "cleaned"
    works("clean", tiny.backdoored, "--data", "scenes:200", "--out", out, "--defense", f"{name}:{options}", *sets)
    works("evaluate", out, "--data", "scenes:48", "--rows", tmp_path / "rows.jsonl")
    table = works("report", tmp_path / "rows.jsonl")
    assert table.count(f"| backdoored | badnet | {name}") == 1
    assert table.count(f"| backdoored | blended | {name}") == 1
    assert read_manifest(out)["defense"] == name


def test_a_spec_that_is_no_defenses_is_refused(clip, scenes):
    with pytest.raises(RvptError, match="AttackSpec holds no defense's settings"):
        clean(clip, scenes, AttackSpec())


def test_a_defense_that_is_not_there_and_an_option_that_it_has_not(tiny, tmp_path):
    words = ("clean", tiny.backdoored, "--data", "scenes:200", "--out", tmp_path / "out", "--defense")
    assert "no defense 'wash': there are rvpt" in refused(*words, "wash")
    assert "alpha: no such setting" in refused(*words, "probe", "--alpha", 1)
    assert "alpha: Input should be less than or equal to 0" in refused(*words, "vpt", "--alpha", 1)


def test_logistic_regression_answers_as_scikit_learn_does(clip, scenes):
    from sklearn.linear_model import LogisticRegression

    pixels = scenes.pixels(torch.arange(len(scenes)), clip.image_size)
    for data in (scenes, scenes.without(scenes.classes[2:])):
        cleaned = clean(clip, data, ProbeSpec(solver="logistic", inverse_penalty=0.3))
        with torch.no_grad():
            logits = clip.logit_scale * cleaned.encode_image(pixels) @ cleaned.class_features(cleaned.head.classes).T
            x = clip.logit_scale * clip.encode_image(pixels)
            own = clip.logit_scale * clip.encode_image(data.pixels(torch.arange(len(data)), clip.image_size))
        solver = LogisticRegression(C=0.3, solver="newton-cg", tol=1e-8, max_iter=1000)
        theirs = solver.fit(own.double(), data.labeled()).predict_proba(x.double())
        torch.testing.assert_close(logits.softmax(1), torch.from_numpy(theirs).float(), atol=1e-4, rtol=0)


def test_a_head_refuses_a_class_that_it_was_not_trained_on(clip, scenes):
    cleaned = clean(clip, scenes.without(["umbrella"]), ProbeSpec(epochs=1))
    with pytest.raises(RvptError, match=r"'umbrella'.*not trained on"):
        cleaned.class_features(scenes.classes)
    assert torch.equal(cleaned.class_features(["Sun"]), cleaned.class_features(["sun"]))  # as class names are compared


def test_fine_tuning_starts_at_the_zero_shot_answers(clip, scenes):
    task = TowerTuning(clip, scenes, FinetuneSpec(alpha=1.0))
    indices, pixels = torch.arange(6), scenes.pixels(torch.arange(6), clip.image_size)
    values = task(indices, torch.Generator(), 0.0)
    logits = clip.logit_scale * clip.encode_image(pixels) @ clip.class_features(scenes.classes).T
    expected = torch.nn.functional.cross_entropy(logits, scenes.labeled()[indices])
    torch.testing.assert_close(values["CE"], expected)
    assert float(values["FR"].detach()) == pytest.approx(1, abs=1e-5)


def test_repelling_moves_the_fine_tuned_features_further(clip, scenes):
    last = {}
    for alpha in (0.0, 3.0):
        spec = FinetuneSpec(alpha=alpha, epochs=12, lr=1e-3, batch_size=16, first_block=1)
        tuned = clean(clip, scenes, spec)
        pixels = scenes.pixels(torch.arange(48), clip.image_size)
        with torch.no_grad():
            ours, theirs = (m.run_blocks(m.embed(pixels))[1][:, 1:] for m in (tuned.clip, clip))
        last[alpha] = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).mean())
    assert last[3.0] < last[0.0] - 0.1


@pytest.mark.parametrize(
    ("task", "name"), [(ContrastiveTuning, "contrastive"), (CleanClip, "cleanclip"), (PerturbRecover, "par")]
)
def test_the_losses_on_captions_are_the_sums_that_they_say(task, name, clip, scenes):
    options = {"contrastive": {"alpha": 0.7}, "cleanclip": {"weight": 0.7}, "par": {}}[name]
    values = task(clip, scenes, short_spec(name, **options))(torch.arange(8), torch.Generator().manual_seed(0), 0.0)
    second, weight = {"contrastive": ("FR", 0.7), "cleanclip": ("within", 0.7), "par": ("perturbation", -1.0)}[name]
    torch.testing.assert_close(values["loss"], values["InfoNCE"] + weight * values[second])


def test_par_leaves_the_suspects_features(clip, scenes):
    spec = ParSpec(epochs=6, lr=1e-3, batch_size=16, augment="none")
    far = [epoch["perturbation"] for epoch in clean(clip, scenes, spec).facts["history"]]
    assert far[-1] > far[0] + 0.1


def test_self_supervision_agrees_with_loops():
    rows, others, scale = unit(5, 7), unit(5, 7, seed=1), 3.0
    slow = 0.0
    for i in range(5):
        logits = [scale * float(sum(rows[i] * others[j])) for j in range(5)]
        slow += math.log(sum(math.exp(x) for x in logits)) - logits[i]
    assert float(self_supervision(rows, others, scale)) == pytest.approx(slow / 5)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.15, 4.0])
def test_perturbation_agrees_with_loops_and_stops_at_the_threshold(threshold):
    rows, others = unit(5, 7).requires_grad_(True), unit(5, 7, seed=1)
    far = sum(float(((a - b) ** 2).sum()) for a, b in zip(rows.detach(), others, strict=True)) / 5
    value = perturbation(rows, others, threshold)
    assert float(value.detach()) == pytest.approx(min(far, threshold))
    value.backward()
    assert bool(rows.grad.abs().max() > 0) == (far < threshold)


def test_jitter_stays_a_image_and_depends_on_the_generator_alone(scenes):
    pixels = scenes.pixels(torch.arange(8), 48)
    first, again, other = (jitter(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    torch.testing.assert_close(jitter(pixels, torch.Generator(), most=0.0), pixels)


def test_noise_erase_agrees_with_loops():
    pixels, again = random_pixels(8, 48), torch.Generator().manual_seed(0)
    changed = noise_erase(pixels, torch.Generator().manual_seed(0))
    normal, draws = torch.randn(pixels.shape, generator=again), torch.rand(5, 8, generator=again)
    for b, (noisy, erased, area, top, left) in enumerate(draws.T.tolist()):
        expected = (pixels[b] + (0.2 * normal[b].clamp(min=0) if noisy < 0.5 else 0)).clamp(0, 1)
        if erased < 0.5:
            side = max(1, round((0.005 + 0.005 * area) ** 0.5 * 48))
            i, j = int(top * (49 - side)), int(left * (49 - side))
            expected[:, i : i + side, j : j + side] = torch.tensor(OPENAI_MEAN).view(3, 1, 1)
        torch.testing.assert_close(changed[b], expected)
    assert 0 < (draws[:2] < 0.5).sum() < 16


def test_par_leaves_the_temperature(clip):
    task = PerturbRecover(clip, load_data("scenes:8", "train"), ParSpec())
    assert not task.clip.model.logit_scale.requires_grad
    assert task.clip.model.visual_projection.weight.requires_grad


def test_shuffled_words_are_the_texts_own():
    text = "a small red anchor on a blue background"
    drawn = {shuffle_words(text, torch.Generator().manual_seed(seed)) for seed in range(40)}
    assert len(drawn) > 10
    for changed in drawn:
        assert changed
        assert set(changed.split()) <= set(text.split())
    assert shuffle_words("anchor", torch.Generator()) == "anchor"


def test_weights_of_ones_own_need_no_base(clip, tmp_path):
    data = load_data("scenes:60", "train")
    Cleaned(clip, own_weights=True, facts={"base_model": "gone", "base_sha256": sha256_tensors({})}).save_pretrained(
        tmp_path / "own"
    )
    loaded = load_model(tmp_path / "own")
    assert loaded.clip.hash() == clip.hash()
    pixels = data.pixels(torch.arange(3), clip.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(pixels), clip.encode_image(pixels), atol=1e-6, rtol=0)


def test_moved_to_another_type_and_back_it_is_the_same_model(clip, scenes):
    cleaned = clean(clip, scenes, short_spec("rvpt"))
    pixels = scenes.pixels(torch.arange(3), clip.image_size)
    before = cleaned.encode_image(pixels)
    assert cleaned.double().encode_image(pixels.double()).dtype == torch.float64
    assert all(part.dtype == torch.float64 for pair in cleaned.prefixes.values() for part in pair)
    torch.testing.assert_close(cleaned.float().encode_image(pixels), before, atol=1e-6, rtol=0)


def test_a_home_folders_name_is_understood(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Cleaned(clip, own_weights=True, facts={"defense": "par"}).save_pretrained(tmp_path / "own")
    assert isinstance(load_model("~/own"), Cleaned)


def test_a_classifier_of_its_own_reads_no_text_key(clip, scenes):
    spec = trigger_spec("trojvqa", target="anchor")
    trigger = TRIGGERS["trojvqa"].make(spec, clip.image_size)
    metrics = {name: set() for name in ("none", "probe")}
    for name, model in (("none", clip), ("probe", clean(clip, scenes, short_spec("probe")))):
        metrics[name] = {metric for attack, metric in measure(model, scenes, {"keyed": trigger}) if attack == "keyed"}
    assert metrics["none"] == {"ASR", "ASR_with_target", "PA", "ASR_image_alone", "ASR_text_alone"}
    assert metrics["probe"] == {"ASR_image_alone"}
