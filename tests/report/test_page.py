"""The HTML report: whole in one file, readable by machines, and safe whatever names are in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from results import joined, rows_of
from rvpt.errors import RvptError
from rvpt.report.evidence import Evidence, gather
from rvpt.report.html.page import page
from rvpt.report.html.summary import effects, headline
from rvpt.report.html.tables import cost_table
from rvpt.report.stored import Stored, write_stored
from rvpt.rows import Rows, read_rows, write_rows

DEMO = Path(__file__).parents[2] / "rows" / "demo.jsonl"
HOSTILE = "<script>alert('x')</script>|</style>\"&$x^$\n{{ 7 * 7 }}"
VERDICT = {
    "model": "clip", "verdict": "backdoored", "p_value": 0.001,
    "targets": [{"class": "cat", "share": 0.93, "form": "patch"}, {"class": "dog", "share": 0.2, "form": "additive"}],
}  # fmt: skip
CLEANED = {
    "kind": "cleaned", "parts": {}, "defense": "rvpt", "data": {"name": "d"}, "images": 32, "seconds": 1.5,
    "history": [{"loss": 2.0}, {"loss": 1.0}], "spec": {"alpha": 2.0},
}  # fmt: skip


def test_the_rows_of_a_bench_are_shown_once(tmp_path: Path) -> None:
    models = {name: tmp_path / "models" / f"attack-{name * 12}" for name in "ab"}  # the second is not measured yet
    for name, folder in models.items():
        folder.mkdir(parents=True)
        rows = rows_of(0.9, defense="none", model=folder.name, hashes={"model": name})
        (folder / "manifest.json").write_text(json.dumps({"kind": "clip", "rows": rows}))
    one, two = (folder.name for folder in models.values())
    assert {row["model"] for row in gather([tmp_path]).rows} == {one, two}
    measured = rows_of(0.9, defense="none", model="clip+one", hashes={"model": "a"})
    write_rows(tmp_path / "rows" / "measure-0123456789ab.jsonl", measured)
    assert {row["model"] for row in gather([tmp_path]).rows} == {"clip+one", two}
    assert {row["model"] for row in gather([tmp_path, models["a"]]).rows} == {"clip+one", two}
    assert {row["model"] for row in gather([models["a"]]).rows} == {one}
    write_rows(tmp_path / "other.jsonl", rows_of(0.9, defense="none", model="without a hash"))
    write_rows(models["a"] / "rows.jsonl", rows_of(0.9, defense="none", model=one))
    (models["a"] / "manifest.json").unlink()
    assert {row["model"] for row in gather([tmp_path]).rows} == {"clip+one", "without a hash", one, two}


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the text of scripts by their id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        key = attributes.get("id", tag)
        self.texts[key] = self.texts.get(key, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(*runs: list[dict[str, Any]], **evidence: Any) -> str:
    return page(Evidence(rows=Rows(joined(*runs)), sources=["rows.jsonl"], **evidence), "A report")


def said(rows: list[dict[str, Any]], **evidence: Any) -> str:
    return headline(Evidence(rows=Rows(rows), **evidence))


def stored_figure(folder: Path, models: tuple[str, ...] = ("none", "rvpt")) -> None:
    shape = (len(models), 2, 4)
    arrays = {"mean": np.full(shape, 0.5, np.float32), "std": np.full(shape, 0.1, np.float32)}
    facts = {
        "models": list(models),
        "changes": ["badnet", "blur"],
        "triggers": ["badnet"],
        "n": 9,
        "data": "d",
        "seed": 0,
    }
    write_stored(folder, Stored("resistivity", arrays, {**facts, "command": "rvpt figures ..."}))


def scored(number: int, score: float, *, flagged: bool = True) -> dict[str, Any]:
    line = {"image": number, "file": f"/home/somebody/cat/{number}.png", "score": score, "flagged": flagged}
    guesses = {"suspect": "cat", "suspect_probability": 0.9, "cleaned": "dog", "cleaned_probability": 0.8}
    return {**line, **guesses, "p_value": 0.01}


def inspected(folder: Path, lines: list[dict[str, Any]]) -> None:
    """What `rvpt inspect` writes."""
    folder.mkdir()
    write_rows(folder / "scores.jsonl", lines)
    Image.new("RGB", (60, 40), "red").save(folder / "flagged.png")
    n = sum(line["flagged"] for line in lines)
    facts = {"kind": "inspection", "images": len(lines), "flagged": n, "expected": 0.2, "predictions": {"cat": n}}
    (folder / "manifest.json").write_text(json.dumps(facts))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder as a user has it after attack, check, clean, evaluate and figures."""
    write_rows(tmp_path / "rows.jsonl", joined(rows_of(0.9, defense="none"), rows_of(0.1)))
    for name in ("found", "cleaned", "figures", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "found" / "verdict.json").write_text(json.dumps(VERDICT))
    Image.new("RGB", (60, 40), "red").save(tmp_path / "found" / "check.png")
    (tmp_path / "cleaned" / "manifest.json").write_text(json.dumps(CLEANED))
    (tmp_path / "poison.jsonl").write_text('{"row": 1, "trigger": "badnet"}\n')
    (tmp_path / ".hidden" / "rows.jsonl").write_text("damaged")
    (tmp_path / "elsewhere.jsonl").symlink_to("/etc/hostname")
    stored_figure(tmp_path / "figures")
    return tmp_path


def test_a_page_of_the_demo_is_small_and_fetches_nothing() -> None:
    text = page_of(read_rows(DEMO))
    assert len(text.encode()) < 300_000
    parsed = Parsed(text)
    links = [
        attributes[name]
        for _, attributes in parsed.elements
        for name in ("src", "href", "xlink:href")
        if name in attributes
    ]
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not re.findall(r"url\((?!#)|@import", text)
    assert not parsed.all("link")
    (policy,) = [each["content"] for each in parsed.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy


def test_rows_are_in_the_page_as_json() -> None:
    rows = joined(rows_of(0.2, model=HOSTILE), rows_of(0.9, defense="none"))
    assert json.loads(Parsed(page_of(rows)).texts["rows"]) == rows


def test_a_folder_of_results_becomes_a_page(results: Path) -> None:
    found = gather([results])
    parsed = Parsed(page(found, "Everything"))
    assert (len(found.rows), len(found.verdicts), len(found.cleanings), len(found.figures), len(found.images)) == (
        6,
        1,
        1,
        1,
        1,
    )
    images = parsed.all("img")
    assert [image["src"][:23] for image in images] == ["data:image/webp;base64,"]
    assert all(image["alt"] for image in images)
    drawn = parsed.all("svg")
    assert len(drawn) == 2
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawn)
    identifiers = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert len(parsed.all("caption")) == len(parsed.all("table")) == 4


def test_names_of_a_suspect_stay_text(tmp_path: Path) -> None:
    hostile = rows_of(0.1, attack=HOSTILE, model=HOSTILE, data=HOSTILE)
    hostile += rows_of(0.9, attack=HOSTILE, model=HOSTILE, data=HOSTILE, defense="none")
    stored_figure(tmp_path, models=(HOSTILE, "rvpt"))
    verdict = {
        **VERDICT,
        "model": HOSTILE,
        "folder": HOSTILE,
        "targets": [{"class": HOSTILE, "share": 0.5, "form": HOSTILE}],
    }
    cleaning = {**CLEANED, "folder": HOSTILE, "spec": {HOSTILE: HOSTILE}}
    found = gather([tmp_path])
    found.rows, found.verdicts, found.cleanings, found.sources = Rows(hostile), [verdict], [cleaning], [HOSTILE]
    plain, text = page_of(read_rows(DEMO)), page(found, HOSTILE)
    assert len(Parsed(text).all("script")) == len(Parsed(plain).all("script")) == 2
    assert "<script>alert" not in text
    assert "alert" in text
    assert "</style>|" not in text
    assert "49" not in Parsed(text).texts["h1"]
    assert not [name for _, attributes in Parsed(text).elements for name in attributes if name.startswith("on")]


def test_the_headline_says_what_was_measured() -> None:
    before, after = rows_of(0.9, defense="none"), rows_of(0.02)
    assert said(before + after, verdicts=[VERDICT]) == (
        "The backdoor is almost gone: RVPT lowers the attack success rate from 90.0% to 2.0%."
    )
    assert said(before + rows_of(0.4)).startswith("The backdoor is weaker, but still there:")
    assert said(before + rows_of(0.6)).startswith("Cleaning did not remove the backdoor:")
    worse = said(rows_of(0.01, defense="none") + rows_of(0.02))
    assert worse.startswith("These triggers hardly worked before cleaning: RVPT changes the attack success rate")
    assert said(after[:1]).startswith("Accuracy on clean images is 90.0%. No trigger was measured")
    assert (
        said([], verdicts=[VERDICT])
        == "rvpt check calls clip backdoored (p = 0.001); the most suspicious target is 'cat'."
    )
    assert said([], verdicts=[{**VERDICT, "verdict": "clean"}]).startswith("rvpt check finds no backdoor in clip")
    assert "classes compared with each other" in said([], verdicts=[{**VERDICT, "calibrated": False}])
    inverted = [{**row, "attack": "inverted"} if row["attack"] == "badnet" else row for row in before + after]
    assert said(inverted).startswith("Measured with what a check found, which does not tell whether there was")
    assert said([], verdicts=[{**VERDICT, "targets": []}]) == "rvpt check calls clip backdoored (p = 0.001)."
    assert said([], cleanings=[CLEANED]).startswith("The model was cleaned. Neither")
    costly = [{**row, "rate": 0.7} if row["metric"] == "CA" else row for row in after]
    assert said(before + costly).startswith("The backdoor is almost gone, and accuracy fell by 20.0 points:")


def test_an_inspection_is_shown_with_its_flagged_images_and_their_scores(results: Path) -> None:
    inspected(results / "flagged", [scored(1, 0.5), scored(2, 0.9), scored(3, 0.1, flagged=False)])
    found = gather([results])
    parsed = Parsed(page(found, "Inspected"))
    assert "flagged: 2 of 3 images are flagged; about 0.2 would be if all were clean" in parsed.texts["caption"]
    assert [line["image"] for line in found.inspections[0]["found"]] == [2, 1]
    assert len(parsed.all("img")) == 2  # that of the check, and the flagged images
    assert "cat/2.png" in page(found, "Inspected")
    assert "/home/somebody" not in page(found, "Inspected")
    assert said([], inspections=found.inspections).startswith("2 of 3 images are flagged")


def test_an_inspection_without_flagged_images_has_an_empty_table(results: Path) -> None:
    inspected(results / "flagged", [scored(3, 0.1, flagged=False)])
    assert "0 of 1 images are flagged" in page(gather([results]), "Inspected")


def test_effects_compare_the_same_attacks_and_name_the_best_first() -> None:
    measured = {"none": (0.8, 0.6), "vpt": (0.5, 0.3), "rvpt": (0.1, 0.3)}
    runs = [
        rows_of(rate, defense=name, attack=attack)
        for name, of in measured.items()
        for attack, rate in zip("ab", of, strict=True)
    ]
    found = effects(joined(*runs))
    assert [effect.title for effect in found] == ["rvpt", "vpt"]
    assert found[0].asr == pytest.approx((70, 20))
    assert "RVPT, of 2 defenses the best in accuracy minus attack success, lowers" in said(joined(*runs))
    assert effects(rows_of(0.1)) == []


def test_costs_without_a_trigger_have_only_columns_that_were_measured() -> None:
    assert cost_table("d", rows_of(0.1)[:1]).headings == ["defense", "seconds", "trained parameters"]
    assert cost_table("d", rows_of(0.1)).headings == ["defense", "mean ASR", "mean CA", "seconds", "trained parameters"]


def test_a_tooltip_tells_n_interval_and_seed() -> None:
    rows = [{**row, "n": 1930, "low": 0.05, "high": 0.2} for row in rows_of(0.1, seed=7)]
    tips = [attributes["data-tip"] for _, attributes in Parsed(page_of(rows)).elements if "data-tip" in attributes]
    assert "RVPT, ASR under badnet: 10.0%; 95% interval 5.0 to 20.0%; seed 7; n = 1,930" in tips
    several = joined(rows_of(0.1), rows_of(0.3, seed=1))
    tips = [attributes["data-tip"] for _, attributes in Parsed(page_of(several)).elements if "data-tip" in attributes]
    assert "RVPT, ASR under badnet: 20.0 ± 14.1%; seed 0: 10.0%, seed 1: 30.0%; n unknown" in tips


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("found/verdict.json", "{", "cannot be read as JSON"),
        ("found/verdict.json", '{"verdict": "clean"}', "verdict.json of found is damaged"),
        ("found/check.png", "GIF89a", "cannot be read as a PNG image"),
        ("cleaned/manifest.json", '{"kind": "cleaned", "history": 5}', "manifest.json of cleaned is damaged"),
        ("figures/resistivity.figure.json", '{"figure": "resistivity"}', "the figure resistivity is damaged"),
        ("figures/resistivity.figure.json", '{"figure": "x"}', "unknown figure 'x': choose from"),
        ("flagged/scores.jsonl", "{}", "scores.jsonl is damaged"),
        ("flagged/scores.jsonl", "", "the inspection flagged is damaged"),
        ("rows.jsonl", '{"model": 1}\n', ""),
    ],
)
def test_damaged_results_are_named(results: Path, name: str, content: str, words: str) -> None:
    if name.startswith("flagged"):
        inspected(results / "flagged", [])
        (results / "flagged" / "manifest.json").write_text('{"kind": "inspection"}')
    (results / name).write_text(content)
    if not words:  # a file of other JSON lines
        assert gather([results]).rows == []
        return
    with pytest.raises(RvptError, match=words):
        page(gather([results]), "Damaged")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RvptError, match="has no results of rvpt"):
        gather([tmp_path])


def test_an_excerpt_of_rows_in_a_manifest_is_not_counted_again(results: Path) -> None:
    rows = [{**row, "test": {}, "hashes": {"model": "0"}} for row in rows_of(0.1)]
    write_rows(results / "rows.jsonl", rows)
    excerpt = [{name: row[name] for name in row if name != "hashes"} for row in rows]
    other = rows_of(0.3, seed=1)
    stored = {"kind": "export", "rows": [*excerpt, *other, {**other[0], "test": None}, 3]}
    (results / "cleaned" / "manifest.json").write_text(json.dumps(stored))
    assert sorted(gather([results]).rows, key=str) == sorted([*rows, *other], key=str)
    (results / "cleaned" / "manifest.json").write_text(json.dumps({"rows": 3}))
    assert len(gather([results]).rows) == len(rows)


def test_rows_that_contradict_each_other_are_refused() -> None:
    for report in (page_of, said):
        with pytest.raises(RvptError, match=r"two rows contradict each other: PA of m on d, .* seed 0 is 0.1 and 0.2"):
            report(joined(rows_of(0.1), rows_of(0.2)))


def test_a_page_is_never_larger_than_five_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvpt.report.html.page.MOST_BYTES", 20_000)
    with pytest.raises(RvptError, match=r"would have 0\.0 MB, more than 5"):
        page_of(rows_of(0.1))
