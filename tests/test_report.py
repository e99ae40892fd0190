"""Tables of rows: what is averaged, what is kept apart, and where it lands in a page."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from rvpt.errors import RvptError
from rvpt.report import costs, matrix, results
from rvpt.report.cells import cells
from rvpt.report.groups import by_run
from rvpt.report.markdown import between_marks, marks
from rvpt.report.tradeoff import draw_panel, draw_tradeoff


def rows(rate, seed=0, defense="rvpt", attack="badnet", **facts):
    """The rows of one run: CA, and the metrics under one attack."""
    shared = {"model": "m", "data": "d", "defense": defense, "seed": seed, **facts}
    found = [{**shared, "attack": "none", "metric": "CA", "rate": 0.9}]
    return found + [{**shared, "attack": attack, "metric": name, "rate": rate} for name in ("PA", "ASR")]


def lines(*runs):
    """The cells of every line of the one table."""
    table = results([row for run in runs for row in run]).splitlines()[4:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_seeds_are_averaged_with_their_standard_deviation():
    (line,) = lines(rows(0.1, seed=0, spec={"seed": 0, "lr": 1}), rows(0.3, seed=1, spec={"seed": 1, "lr": 1}))
    assert line == ["m", "badnet", "rvpt", "2", "90.0 ± 0.0", "20.0 ± 14.1", "20.0 ± 14.1"]


def test_a_metric_has_a_column_if_some_run_has_it():
    more = [{**row, "metric": "ASR_with_target"} for row in rows(0.4, attack="blended")[1:2]]
    found = lines(rows(0.1), [*rows(0.2, attack="blended"), *more])
    assert [line[5:] for line in found] == [["10.0", "10.0", "–"], ["20.0", "20.0", "40.0"]]


def test_runs_with_other_settings_are_kept_apart_and_say_what_most_do_not_have():
    one, two = {"alpha": 0.5, "lr": 1, "seed": 0}, {"alpha": 2.0, "lr": 1, "seed": 0}
    found = lines(rows(0.1, spec=two), rows(0.2, spec=one), rows(0.3, spec=one, shots=4))
    assert [line[2] for line in found] == ["rvpt, alpha=2.0", "rvpt", "rvpt, shots=4"]
    found = lines(rows(0.1, spec=two), rows(0.2, spec=one))  # none is what most have
    assert [line[2] for line in found] == ["rvpt, alpha=2.0", "rvpt, alpha=0.5"]
    found = lines(rows(0.1, spec=two), rows(0.2, spec=two, seed=1), rows(0.3, spec=one))  # runs count, not their seeds
    assert [line[2] for line in found] == ["rvpt, alpha=2.0", "rvpt, alpha=0.5"]


def test_runs_that_did_not_see_the_same_classes_are_kept_apart():
    found = lines(rows(0.1), rows(0.2, without=["cup", "sun"]), rows(0.3, without=["cup"]))
    assert [line[2] for line in found] == ["rvpt, without=None", "rvpt, without=cup, sun", "rvpt, without=cup"]


def test_a_row_that_stands_in_two_files_counts_once():
    (line,) = lines(rows(0.1, seconds=1), rows(0.1, seconds=2), rows(0.3, seed=1))
    assert line[3:6] == ["2", "90.0 ± 0.0", "20.0 ± 14.1"]


def test_accuracy_is_that_of_the_models_that_the_attack_was_measured_on():
    badnet = rows(0.1, seed=0) + rows(0.1, seed=1)
    blended = rows(0.2, seed=0, attack="blended", targets={"blended": "cup"})  # measured apart: CA has two rows
    badnet[3]["rate"] = 0.7
    assert [line[3:5] for line in lines(badnet, blended)] == [["2", "80.0 ± 14.1"], ["1", "90.0"]]


def test_captions_that_were_measured_with_stand_in_the_lines_where_they_differ():
    found = lines(rows(0.1, template="a {}."), rows(0.2, template="the {}."), rows(0.3, defense="vpt"))
    assert [line[2] for line in found] == ["vpt", "rvpt, measured_with=a {}.", "rvpt, measured_with=the {}."]


def test_defenses_stand_in_the_order_of_the_story():
    found = lines(*(rows(0.1, defense=name) for name in ("other", "rvpt", "none", "probe", "before the attack", "vpt")))
    assert [line[2] for line in found] == ["before the attack", "none", "probe", "vpt", "rvpt", "other"]


def test_the_papers_numbers_stand_beside_ours_where_it_has_some():
    table = results([{**row, "data": "caltech101"} for name in ("rvpt", "vpt") for row in rows(0.1, defense=name)])
    heading, _, vpt, ours = table.splitlines()[2:6]
    assert heading.endswith("| paper: CA, ASR |")
    assert ours.endswith("| 94.0, 0.0 |")
    assert vpt.endswith("|  |")
    assert "paper" not in results(rows(0.1))


def test_the_papers_numbers_stand_beside_the_set_however_it_is_written_and_only_if_it_was_cleaned_on():
    here, elsewhere = (
        [{**row, "data": "Caltech-101", "cleaned_on": name} for row in rows(0.1)] for name in ("Caltech-101", "d")
    )
    assert results(here).splitlines()[4].endswith("| 94.0, 0.0 |")
    assert results(elsewhere).splitlines()[4].endswith("|  |")


def test_rows_that_were_measured_otherwise_are_kept_apart():
    found = lines(rows(0.1), rows(0.2, test={"limit": 100}), rows(0.3, seed=1))
    assert [line[2:4] for line in found] == [["rvpt", "2"], ["rvpt, limit=100", "1"]]


def test_what_most_were_measured_with_is_not_taken_for_what_all_were():
    sample = [rows(rate, model=model, test={"limit": 100}) for rate, model in ((0.2, "a"), (0.3, "b"), (0.4, "c"))]
    found = lines(rows(0.1, model="a"), *sample)
    assert [line[:4] for line in found] == [
        ["a", "badnet", "rvpt", "1"], *([model, "badnet", "rvpt, limit=100", "1"] for model in "abc"),
    ]  # fmt: skip


def test_a_target_is_told_where_one_model_has_several():
    runs = [rows(rate, model=model, targets={"badnet": name}) for model, name, rate in (
        ("a", "cup", 0.1), ("b", "sun", 0.2), ("b", "cup", 0.3),
    )]  # fmt: skip
    assert [line[2] for line in lines(*runs)] == ["rvpt", "rvpt, target=sun", "rvpt, target=cup"]


def test_two_triggers_of_one_name_are_kept_apart():
    def under(trigger, rate, seed=0):
        return rows(rate, seed, hashes={"model": "m", "trigger/badnet": trigger})

    found = lines(under("one", 0.1), under("two", 0.9))
    assert [[line[2], line[5]] for line in found] == [["rvpt, trigger=one", "10.0"], ["rvpt, trigger=two", "90.0"]]
    (line,) = lines(under("one", 0.1), under("two", 0.9, seed=1))  # each seed draws its own
    assert line[2:4] == ["rvpt", "2"]


def test_only_what_stands_between_the_marks_is_replaced():
    (start, end), (first, last) = marks(), marks("a")
    page = "before\n{start}\n{}{end}\nbetween\n{first}\n{}{last}\nafter\n".format
    shown = {"start": start, "end": end, "first": first, "last": last}
    assert between_marks(page("old\n", "a\n", **shown), "new\n") == page("new\n", "a\n", **shown)
    assert between_marks(page("old\n", "a\n", **shown), "new\n", "a") == page("old\n", "new\n", **shown)
    assert between_marks("before\n", "new\n") == f"before\n\n{start}\nnew\n{end}\n"


@pytest.mark.parametrize("page", ["{0}\nprose", "prose\n{1}", "{1}\nprose\n{0}", "{0}\n{1}\n{0}\n{1}", "{0}{1}{1}"])
def test_a_page_whose_marks_do_not_fit_is_left_as_it_is(page):
    with pytest.raises(RvptError, match=r"<!-- rows --> once and <!-- /rows --> once behind it"):
        between_marks(page.format(*marks()), "new\n")


def table(*runs):
    """The cells of every line of the one matrix, its heading first."""
    found = matrix([row for run in runs for row in run]).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found if not line.startswith("|---")]


def test_a_matrix_has_attacks_down_and_defenses_across_in_the_order_of_the_story():
    found = table(rows(0.4), rows(0.1, attack="blended"), rows(0.8, defense="none"), rows(0.2, seed=1))
    assert found == [
        ["model", "attack", "none", "rvpt"],
        ["m", "badnet", "90.0, 80.0", "90.0, 30.0 ± 14.1"],
        ["m", "blended", "–", "90.0, 10.0"],
    ]


def test_the_means_of_a_matrix_are_over_attacks_that_every_defense_met():
    runs = [rows(rate, defense=name, attack=attack) for name, attack, rate in (
        ("none", "a", 0.8), ("none", "b", 0.6), ("none", "c", 0.0), ("rvpt", "a", 0.1), ("rvpt", "b", 0.3),
    )]  # fmt: skip
    assert table(*runs)[-1] == ["mean of 2", "", "90.0, 70.0", "90.0, 20.0"]


def paid(seconds, digest, defense="rvpt", **facts):
    """The rows of a cleaned model, and what it cost."""
    cost = {"trained_parameters": 3000, "clean_seconds": seconds, "hashes": {"model": digest}}
    return rows(0.1, defense=defense, **cost, **facts)


def test_a_cleaned_model_costs_once_however_often_it_was_measured():
    again = [{**row, "data": "e"} for row in paid(10, "a")]
    found = costs([*paid(10, "a"), *again, *paid(20, "b", seed=1), *paid(5, "c", "probe"), *paid(0, "d", "none")])
    assert found.splitlines()[2:] == ["| probe | 3,000 | 1 | 5 |", "| rvpt | 3,000 | 2 | 15 ± 7 |"]
    with pytest.raises(RvptError, match="no row is of a cleaned model"):
        costs(paid(0, "d", "none"))


def test_defenses_with_other_settings_cost_apart():
    runs = [paid(10 * n, str(n), model=f"m{n}", spec={"epochs": 15 if n == 3 else 40}) for n in range(4)]
    found = costs([row for run in runs for row in run])
    assert found.splitlines()[2:] == [
        "| rvpt | 3,000 | 3 | 10 ± 10 |",
        "| rvpt, epochs=15 | 3,000 | 1 | 30 |",
    ]


def test_two_models_of_one_name_and_seed_stand_apart():
    one, other = (rows(0.1, hashes={"model": f"{name * 64}"}) for name in "ab")
    assert len(by_run(one)) == 1
    assert [run.own for run in by_run(one + other)] == ["model=aaaaaaaa", "model=bbbbbbbb"]


def test_columns_of_a_matrix_are_of_one_setting_across_models():
    runs = [rows(0.2, model=f"m{n}", spec={"alpha": 2.0 if n == 3 else 0.5}) for n in range(4)]
    assert table(*runs)[0] == ["model", "attack", "rvpt", "rvpt, alpha=2.0"]


def test_a_run_without_ca_or_asr_has_no_place_in_a_matrix():
    other = rows(0.1, defense="probe")
    assert (
        table(rows(0.2), other[1:])
        == table(rows(0.2), other[:2])
        == [["model", "attack", "rvpt"], ["m", "badnet", "90.0, 20.0"]]
    )
    with pytest.raises(RvptError, match="no run has both CA and ASR"):
        matrix(other[1:])


def test_the_image_has_a_small_mark_for_each_attack_and_a_large_one_at_the_mean():
    runs = [rows(rate, defense=name, attack=attack) for name, attack, rate in (
        ("none", "a", 0.8), ("none", "b", 0.6), ("none", "c", 0.0), ("rvpt", "a", 0.1), ("rvpt", "b", 0.3),
    )]  # fmt: skip
    axes = Figure().subplots()
    draw_panel(axes, "d", cells([row for run in runs for row in run]))
    drawn = [[tuple(map(round, point)) for point in marks.get_offsets().tolist()] for marks in axes.collections]
    assert drawn == [[(90, 80), (90, 60), (90, 0)], [(90, 70)], [(90, 10), (90, 30)], [(90, 20)]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["none", "rvpt"]


def test_a_image_is_a_png_with_a_panel_for_each_set(tmp_path):
    heights = []
    for sets in (["d"], ["d", "e"]):
        draw_tradeoff([{**row, "data": name} for name in sets for row in rows(0.2)], tmp_path / "t.png")
        with Image.open(tmp_path / "t.png", formats=["PNG"]) as image:
            heights.append(image.height)
    assert heights[1] == 2 * heights[0]
    with pytest.raises(RvptError, match="no run has both CA and ASR"):
        draw_tradeoff(rows(0.1)[1:], tmp_path / "other.png")
