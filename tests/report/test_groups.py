"""Which rows are one run: seeds are pooled, different settings, models and triggers are not."""

from __future__ import annotations

from typing import Any

from results import cells, joined, rows_of
from rvpt.report import results
from rvpt.report.groups import by_data, by_run


def lines(*runs: list[dict[str, Any]]) -> list[list[str]]:
    """The cells of each line of the one table, without its heading."""
    return cells(results(joined(*runs)))[1:]


def defenses(*runs: list[dict[str, Any]]) -> list[str]:
    return [line[2] for line in lines(*runs)]


def test_runs_with_other_settings_are_apart_and_say_what_most_do_not_have() -> None:
    one, two = {"alpha": 0.5, "lr": 1, "seed": 0}, {"alpha": 2.0, "lr": 1, "seed": 0}
    assert defenses(rows_of(0.1, spec=two), rows_of(0.2, spec=one), rows_of(0.3, spec=one, shots=4)) == [
        "rvpt, alpha=2.0", "rvpt", "rvpt, shots=4",
    ]  # fmt: skip
    # There is no setting that most have.
    assert defenses(rows_of(0.1, spec=two), rows_of(0.2, spec=one)) == ["rvpt, alpha=2.0", "rvpt, alpha=0.5"]
    # Runs count, not their seeds.
    more = rows_of(0.2, spec=two, seed=1)
    assert defenses(rows_of(0.1, spec=two), more, rows_of(0.3, spec=one)) == ["rvpt, alpha=2.0", "rvpt, alpha=0.5"]


def test_a_setting_may_be_a_list() -> None:
    one, two = {"forms": ["additive"]}, {"forms": ["additive", "patch"]}
    found = defenses(rows_of(0.1, spec=one), rows_of(0.2, spec=two))
    assert found == ["rvpt, forms=additive", "rvpt, forms=additive, patch"]


def test_values_of_other_tools_may_be_of_any_kind() -> None:
    odd = rows_of(0.1, test={"only": ["a", "b"], "how": {"x": 1}}, targets={"badnet": None})
    assert sorted(defenses(odd, rows_of(0.2))) == ["rvpt", "rvpt, only=a, b how={'x': 1}"]


def test_runs_that_did_not_see_the_same_classes_are_apart() -> None:
    assert defenses(rows_of(0.1), rows_of(0.2, without=["cup", "sun"]), rows_of(0.3, without=["cup"])) == [
        "rvpt, without=None", "rvpt, without=cup, sun", "rvpt, without=cup",
    ]  # fmt: skip


def test_runs_that_were_measured_with_other_captions_are_apart() -> None:
    found = defenses(rows_of(0.1, template="a {}."), rows_of(0.2, template="the {}."), rows_of(0.3, defense="vpt"))
    assert found == ["vpt", "rvpt, measured_with=a {}.", "rvpt, measured_with=the {}."]


def test_runs_that_were_measured_in_another_way_are_apart() -> None:
    found = lines(rows_of(0.1), rows_of(0.2, test={"limit": 100}), rows_of(0.3, seed=1))
    assert [line[2:4] for line in found] == [["rvpt", "2"], ["rvpt, limit=100", "1"]]


def test_only_what_all_were_measured_with_is_left_out() -> None:
    sample = [rows_of(rate, model=model, test={"limit": 100}) for rate, model in ((0.2, "a"), (0.3, "b"), (0.4, "c"))]
    assert [line[:4] for line in lines(rows_of(0.1, model="a"), *sample)] == [
        ["a", "badnet", "rvpt", "1"], *([model, "badnet", "rvpt, limit=100", "1"] for model in "abc"),
    ]  # fmt: skip
    assert [line[2] for line in lines(*sample)] == ["rvpt"] * 3


def test_a_target_is_named_where_one_model_has_several() -> None:
    runs = [rows_of(rate, model=model, targets={"badnet": name}) for model, name, rate in (
        ("a", "cup", 0.1), ("b", "sun", 0.2), ("b", "cup", 0.3),
    )]  # fmt: skip
    assert defenses(*runs) == ["rvpt", "rvpt, target=sun", "rvpt, target=cup"]


def test_two_triggers_of_one_name_and_seed_are_apart() -> None:
    def under(trigger: str, rate: float, seed: int = 0) -> list[dict[str, Any]]:
        return rows_of(rate, seed, hashes={"model": "m", "trigger/badnet": trigger})

    found = lines(under("one", 0.1), under("two", 0.9))
    assert [[line[2], line[5]] for line in found] == [["rvpt, trigger=one", "10.0"], ["rvpt, trigger=two", "90.0"]]
    (line,) = lines(under("one", 0.1), under("two", 0.9, seed=1))  # another seed draws another trigger
    assert line[2:4] == ["rvpt", "2"]


def test_two_models_of_one_name_and_seed_are_apart() -> None:
    one, other = (rows_of(0.1, hashes={"model": f"{name * 64}"}) for name in "ab")
    assert len(by_run(one)) == 1
    assert [run.own for run in by_run(one + other)] == ["model=aaaaaaaa", "model=bbbbbbbb"]


def test_a_row_that_is_in_two_files_counts_once() -> None:
    (line,) = lines(rows_of(0.1, seconds=1), rows_of(0.1, seconds=2), rows_of(0.3, seed=1))
    assert line[3:6] == ["2", "90.0 ± 0.0", "20.0 ± 14.1"]


def test_accuracy_is_that_of_the_models_under_the_attack() -> None:
    badnet = rows_of(0.1, seed=0) + rows_of(0.1, seed=1)
    blended = rows_of(0.2, seed=0, attack="blended", targets={"blended": "cup"})  # measured apart: CA has two rows
    badnet[3]["rate"] = 0.7
    assert [line[3:5] for line in lines(badnet, blended)] == [["2", "80.0 ± 14.1"], ["1", "90.0"]]


def test_data_sets_are_in_alphabetical_order() -> None:
    assert list(by_data(joined(*(rows_of(0.1, data=name) for name in "bca")))) == ["a", "b", "c"]


def test_a_model_that_was_measured_by_an_older_version_too_counts_once() -> None:
    older, newer = rows_of(0.1, version="0.1"), rows_of(0.1, version="0.2", resisted_targets=["sun"])
    (members,) = by_data(joined(older, newer)).values()
    assert len(members) == len(older)


def test_the_learning_rate_of_a_head_tells_runs_apart_only_with_a_head() -> None:
    settings = [{"head": head, "head_lr": lr} for head in (False, True) for lr in (0.1, 0.2)]
    assert defenses(*(rows_of(0.1, spec=spec, seed=seed) for seed, spec in enumerate(settings))) == [
        "rvpt, head=False", "rvpt, head_lr=0.1", "rvpt, head_lr=0.2",
    ]  # fmt: skip
    assert defenses(rows_of(0.1, spec={"head": False}), rows_of(0.1, spec={}, seed=1)) == ["rvpt"]
