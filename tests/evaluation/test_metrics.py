"""Metrics agree with counting by hand, and the interval with Wilson's formula."""

import math
from functools import reduce
from itertools import pairwise
from operator import add

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from reference import place
from rvpt.evaluation.metrics import (
    Mean,
    Rate,
    accuracy,
    attack_success,
    attack_success_with_target,
    bleu,
    found,
    perturbation_resistivity,
    rank,
    rank_ratio,
)

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30)
METRICS = {
    "accuracy": lambda guesses, labels: accuracy(guesses, labels),
    "ASR": lambda guesses, labels: attack_success(guesses, labels, 2),
    "ASR_with_target": lambda guesses, labels: attack_success_with_target(guesses, labels, 2),
}


def tensors(pairs):
    """Guesses and labels."""
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)


@given(PAIRS)
def test_accuracy_counts_correct_predictions(pairs):
    assert accuracy(*tensors(pairs)) == Rate(sum(guess == label for guess, label in pairs), len(pairs))


@given(PAIRS, st.integers(0, 3))
def test_attack_success_leaves_the_target_class_out(pairs, target):
    others = [guess for guess, label in pairs if label != target]
    assert attack_success(*tensors(pairs), target) == Rate(others.count(target), len(others))


@given(PAIRS, st.integers(0, 3))
def test_attack_success_with_target_counts_every_image(pairs, target):
    guesses = [guess for guess, _ in pairs]
    assert attack_success_with_target(*tensors(pairs), target) == Rate(guesses.count(target), len(pairs))


def test_the_two_attack_rates_differ_by_the_target_class_alone():
    guesses, labels = torch.tensor([2, 2, 2, 0]), torch.tensor([2, 2, 0, 1])
    assert attack_success(guesses, labels, 2) == Rate(1, 2)
    assert attack_success_with_target(guesses, labels, 2) == Rate(3, 4)


@pytest.mark.parametrize("name", METRICS)
@given(pairs=PAIRS, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_rates_of_batches_add_up_to_the_whole(name, pairs, cuts):
    ends = [0, *sorted(min(cut, len(pairs)) for cut in cuts), len(pairs)]
    parts = [METRICS[name](*tensors(pairs[a:b])) for a, b in pairwise(ends)]
    assert reduce(add, parts) == METRICS[name](*tensors(pairs))


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_interval_is_wilsons(n, share):
    k, z = round(share * n), norm.ppf(0.975)
    center = (k + z**2 / 2) / (n + z**2)
    half = z * math.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    low, high = Rate(k, n).interval()
    assert low == pytest.approx(center - half, abs=1e-9)
    assert high == pytest.approx(center + half, abs=1e-9)
    assert 0 <= low <= k / n <= high <= 1


RANKS = st.lists(st.integers(1, 40), max_size=30)


def ints(values):
    return torch.tensor(values, dtype=torch.int64)


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 5), min_size=3, max_size=3)), max_size=8))
def test_rank_agrees_with_its_slow_twin(queries):
    own = torch.tensor([score for score, _ in queries], dtype=torch.float32)
    others = torch.tensor([scores for _, scores in queries], dtype=torch.float32).reshape(-1, 3)
    ranks = rank(own, others)
    assert ranks.dtype == torch.int64
    assert ranks.tolist() == [place(score, scores) for score, scores in queries]
    assert torch.equal(rank(own, torch.cat([others, own[:, None]], dim=1)), ranks)  # beside itself it stands as well


@given(RANKS, st.integers(1, 40))
def test_found_counts_the_first_places(ranks, k):
    assert found(ints(ranks), k) == Rate(sum(place <= k for place in ranks), len(ranks))


@given(RANKS.filter(len))
def test_rank_ratio_is_the_mean_place_among_the_candidates(ranks):
    ratio = rank_ratio(ints(ranks), 40)
    assert ratio.value == pytest.approx(sum(place / 40 for place in ranks) / len(ranks))
    assert 1 / 40 <= ratio.value <= 1
    assert ratio.interval() is None


@given(RANKS, RANKS)
def test_ranks_of_batches_add_up_to_the_whole(one, other):
    whole = ints(one + other)
    assert found(ints(one), 3) + found(ints(other), 3) == found(whole, 3)
    ratio = rank_ratio(ints(one), 40) + rank_ratio(ints(other), 40)
    assert ratio == rank_ratio(whole, 40)
    assert isinstance(ratio, Mean)


def test_a_rate_of_no_images_is_not_a_number():
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval() == (0.0, 1.0)
    assert Rate(3, 4).value == 0.75


def test_perturbation_resistivity_is_the_mean_cosine():
    clean, changed = torch.tensor([[1.0, 0], [3, 4]]), torch.tensor([[2.0, 0], [-4, 3]])
    assert perturbation_resistivity(clean, changed) == Mean(1, 2)
    assert perturbation_resistivity(clean, -clean) == Mean(-2, 2)
    assert perturbation_resistivity(clean, changed).interval() is None


WORDS = st.lists(st.sampled_from(["a", "fox", "owl", "red"]), max_size=7).map(" ".join)


def slow_bleu(said, references):
    """BLEU with lists and loops, as it is written down."""
    words, others = said.split(), [text.split() for text in references]
    if not words:
        return 0.0
    product = 1.0
    for n in (1, 2, 3, 4):
        runs = [words[i : i + n] for i in range(len(words) - n + 1)]
        matched = 0
        for run in {tuple(run) for run in runs}:
            times = [sum(other[i : i + n] == list(run) for i in range(len(other) - n + 1)) for other in others]
            matched += min(sum(each == list(run) for each in runs), max(times))
        product *= (matched / len(words)) if n == 1 else (matched + 1) / (len(runs) + 1)
    gaps = sorted((abs(len(other) - len(words)), len(other)) for other in others)
    return product**0.25 * math.exp(min(0, 1 - gaps[0][1] / len(words)))


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_bleu_agrees_with_its_slow_twin(said, references):
    assert bleu(said, references) == pytest.approx(slow_bleu(said, references))


def test_bleu_is_one_for_a_copy_and_ignores_case_and_points():
    assert bleu("A fox runs over the hill.", ["an owl", "a fox runs over the hill"]) == pytest.approx(1)
    assert bleu("", ["a fox"]) == bleu("owl", ["a fox"]) == 0
