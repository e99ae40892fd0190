"""Rows on the screen: every run has a line, and no run hides another."""

from rvpt.cli.tables import show_rows


def rows(rate, seed=0, alpha=1.0, attack="badnet", low=0.1, high=0.2):
    shared = {"model": "m", "data": "d", "defense": "rvpt", "seed": seed, "spec": {"alpha": alpha}}
    shared |= {"low": low, "high": high}
    return [
        {**shared, "attack": "none", "metric": "CA", "rate": 0.9},
        {**shared, "attack": attack, "metric": "ASR", "rate": rate},
    ]


def lines(capsys, *runs):
    """The cells of each printed line of the table's body."""
    show_rows([row for run in runs for row in run], as_json=False)
    body = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in body]


def test_one_measurement_has_its_interval(capsys):
    first, second = lines(capsys, rows(0.15))
    assert first == ["d", "m", "badnet", "rvpt", "90.0", "15.0"]
    assert second[4:] == ["[10.0, 20.0]"] * 2


def test_seeds_share_a_line_with_their_deviation_and_settings_have_lines_of_their_own(capsys):
    found = lines(capsys, rows(0.1, seed=0), rows(0.3, seed=1))
    assert [line[4:] for line in found] == [["90.0 ± 0.0", "20.0 ± 14.1"]]
    found = lines(capsys, rows(0.1), rows(0.3, alpha=2.0))
    assert [line[3::2] for line in found[::2]] == [["rvpt, alpha=1.0", "10.0"], ["rvpt, alpha=2.0", "30.0"]]


def test_a_table_of_many_rates_has_room_for_names(capsys):
    shared = rows(0.1)[0] | {"model": "a-model-of-ours", "low": 0.1, "high": 0.2}
    names = [f"readable_{name}" for name in ("background", "color", "place", "shape", "size", "texture")]
    first, second = lines(capsys, [{**shared, "metric": name} for name in names])
    assert first[:4] == ["d", "a-model-of-ours", "none", "rvpt"]
    assert second[4:] == ["[10.0, 20.0]"] * 6


def test_a_mean_has_no_interval_and_what_was_not_measured_has_a_dash(capsys):
    mean = {**rows(0.25, low=None)[1], "metric": "rank_ratio"}
    first, _, third, _ = lines(capsys, [mean, *rows(0.1, attack="blended")])
    assert [first[4:], third[4:]] == [["90.0", "–", "25.0"], ["90.0", "10.0", "–"]]
