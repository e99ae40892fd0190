"""Recipes: what they expand to, that they run once, go on after a kill, and live with a run that fails."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from commands import refused, rvpt, works
from rvpt import demo, presets
from rvpt.attacks import load_trigger
from rvpt.bench import plan, read_recipe, run_all
from rvpt.bench.execute import execute
from rvpt.bench.run import missing
from rvpt.errors import RvptError
from rvpt.store import read_rows

RECIPE = """
title = "small"
model = "{model}"
target = "anchor"
seeds = [0, 1]
attack_data = {{data = ["scenes:200"], test = "scenes:48"}}
clean_data = {{data = "scenes:500"}}
tests = [{tests}]
[attacks.both]
triggers = [{{name = "badnet", place = "middle"}}, {{name = "blended"}}]
poison = {{n = 20}}
train = {{epochs = 1}}
[defenses.vpt]
name = "vpt"
shots = 1
options = {{epochs = 1, length = 2}}
[defenses.again]
name = "rvpt"
shots = 1
options = {{epochs = 1, length = 2, alpha = {alpha}}}
"""
TIMINGS = ("seconds", "clean_seconds", "peak_memory_bytes")


def recipe(tiny, folder, alpha=1.0, extra="", tests='{data = "scenes:48"}'):
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=tiny.clip, alpha=alpha, tests=tests) + extra)
    return path


def by_data(rows):
    return {name: [row for row in rows if row["data"] == name] for name in {row["data"] for row in rows}}


def lasting(rows):
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]


def test_a_plan_makes_shared_work_once_and_keys_depend_on_all_settings(tiny, tmp_path):
    tasks = plan(read_recipe(recipe(tiny, tmp_path)), "hash")
    kinds = [task.kind for task in tasks]
    assert (kinds.count("attack"), kinds.count("clean"), kinds.count("measure")) == (2, 4, 8)
    assert len({task.key for task in tasks}) == len(tasks)
    other = plan(read_recipe(recipe(tiny, tmp_path, alpha=2.0)), "hash")
    shared = {task.key for task in tasks} & {task.key for task in other}
    assert len(shared) == len(tasks) - 4  # a cleaning and a measurement for each seed are others
    assert not {task.key for task in plan(read_recipe(recipe(tiny, tmp_path)), "another")} & shared


def test_what_an_attack_leaves_out_is_the_recipes_and_then_the_presets(tiny, tmp_path):
    path = recipe(tiny, tmp_path)
    path.write_text("pairs = 100\ntrain = {epochs = 7, lr = 2e-3}\n" + path.read_text())
    attack = plan(read_recipe(path), "hash")[0].settings
    spec = attack["spec"]
    assert (attack["pairs"], spec["epochs"], spec["lr"], spec["batch_size"]) == (100, 1, 2e-3, 128)


SMALL = "trojvqa:epochs=1,images=32"
CRAFTED = """
[attacks.first]
triggers = [{name = "trojvqa", epochs = 1, images = 32}, {name = "blended"}]
poison = {n = 20}
train = {epochs = 1}
[attacks.second]
triggers = [{name = "trojvqa", epochs = 1, images = 32}]
poison = {n = 30}
train = {epochs = 1}
"""


def crafting(tiny, folder):
    """A recipe of two attacks that have a crafted trigger in common, seed 0 and no defense."""
    path = recipe(tiny, folder)
    head, _ = path.read_text().replace("[0, 1]", "[0]").split("[attacks.both]")
    path.write_text("pairs = 100" + head + CRAFTED)
    return path


def test_a_crafted_trigger_is_made_once_for_all_attacks_that_have_it(tiny, tmp_path):
    path, rows = crafting(tiny, tmp_path), tmp_path / "rows.jsonl"
    facts = json.loads(works("bench", path, "--work", tmp_path / "runs", "--dry-run", "--json"))
    assert (facts["craft"], facts["attack"], facts["measure"]) == (1, 2, 4)
    works("bench", path, "--work", tmp_path / "runs", "--rows", rows)
    hashes = {row["hashes"]["trigger/trojvqa"] for row in read_rows(rows)}
    (made,) = (tmp_path / "runs" / "triggers").iterdir()
    assert hashes == {load_trigger(made).hash()}
    words = ["--data", "scenes:200", "--target", "anchor", "--pairs", 100, "--json"]
    crafted = json.loads(works("craft", SMALL, tiny.clip, *words, "--out", tmp_path / "alone"))
    by_attack = works(
        "attack", tiny.clip, "--trigger", SMALL, *words, "--n", 20, "--epochs", 1, "--out", tmp_path / "bad"
    )
    assert {row["hashes"]["trigger/trojvqa"] for row in json.loads(by_attack)} == hashes == {crafted["sha256"]}


def test_attacks_whose_trigger_could_not_be_crafted_are_not_started(tiny, tmp_path):
    tasks, begun = plan(read_recipe(crafting(tiny, tmp_path)), "hash"), []

    def submit(task, work):
        begun.append(task.kind)
        future = Future()
        future.set_exception(RvptError("no images"))
        return future

    outcomes = run_all(tasks, tmp_path / "runs", submit, lambda outcome: None)
    assert begun == ["craft"]
    assert sum("its model or trigger is missing" in outcome.error for outcome in outcomes) == len(tasks) - 1


def test_a_plan_tells_the_test_sets_apart(tiny, tmp_path):
    tests = '{data = "scenes"}, {data = "scenes:48", only = ["umbrella"], shift = "gray"}'
    tasks = plan(read_recipe(recipe(tiny, tmp_path, tests=tests)), "hash")
    titles = [task.title for task in tasks if task.kind == "measure"]
    assert len(set(titles)) == 16
    assert titles[1] == "clip+both, seed 0, before the attack, on scenes:48 (only umbrella) (gray)"


def test_a_defense_with_a_head_is_measured_on_the_classes_that_it_knows(tiny, tmp_path):
    tests = '{data = "scenes:500"}, {data = "scenes:48"}, {data = "scenes:500", protocol = "retrieval"}'
    tasks = plan(read_recipe(recipe(tiny, tmp_path, extra='[defenses.probe]\nname = "probe"\n', tests=tests)), "hash")
    titles = [task.title for task in tasks if task.kind == "measure" and "seed 0" in task.title]
    assert [title for title in titles if "probe" in title] == ["clip+both, seed 0, probe, on scenes:500"]
    assert sum("again" in title for title in titles) == 3


def test_an_attack_with_tests_of_its_own_is_measured_on_these_alone(tiny, tmp_path):
    other = '[attacks.other]\ntriggers = [{name = "sig"}]\ntests = [{data = "scenes:72"}]\n'
    own = other + '[defenses.probe]\nname = "probe"\n'
    tasks = plan(read_recipe(recipe(tiny, tmp_path, extra=own, tests='{data = "scenes:500"}')), "hash")
    measured = [task.title for task in tasks if task.kind == "measure" and "seed 0" in task.title]
    assert {title for title in measured if "clip+other" in title} == {
        f"clip+other, seed 0, {label}, on scenes:72" for label in ("before the attack", "none", "vpt", "again")
    }
    assert sum("on scenes:500" in title for title in measured) == 5
    cleaned = [task.title for task in tasks if task.kind == "clean" and "probe" in task.title]
    assert cleaned == [f"clip+both, seed {seed}, probe" for seed in (0, 1)]  # the other's could not be measured


def test_a_test_set_is_measured_as_its_entry_asks(tiny, tmp_path):
    options = ("", ', only = ["heart", "star"]', ', shift = "sketch"', ', protocol = "retrieval"')
    tests = ", ".join(f'{{data = "scenes:48"{more}}}' for more in options)
    path, rows = recipe(tiny, tmp_path, tests=tests), tmp_path / "rows.jsonl"
    head = path.read_text().split("[defenses")[0].replace("[0, 1]", "[0]")
    path.write_text(head)
    works("bench", path, "--work", tmp_path / "runs", "--rows", rows)
    found = {name: {row["metric"] for row in group} for name, group in by_data(read_rows(rows)).items()}
    classified = {"CA", "ASR", "ASR_with_target", "PA"}
    assert found == {
        "scenes:48": classified | {"R@1", "ASR@10", "rank_ratio"},
        "scenes:48 (only heart, star)": classified,
        "scenes:48 (sketch)": classified,
    }


def test_it_runs_what_is_missing_and_writes_rows(tiny, tmp_path):
    path, work, rows = recipe(tiny, tmp_path), tmp_path / "runs", tmp_path / "rows.jsonl"
    before = json.loads(works("bench", path, "--work", work, "--dry-run", "--json"))
    assert before["done"] == "0 of 14"
    assert "not known" in before["time"]
    works("bench", path, "--work", work, "--rows", rows)
    first = read_rows(rows)
    assert {row["model"] for row in first} == {"clip+both"}
    assert {row["defense"] for row in first} == {"before the attack", "none", "vpt", "rvpt"}
    assert {row["seed"] for row in first} == {0, 1}
    after = json.loads(works("bench", path, "--work", work, "--dry-run", "--json"))
    assert after["done"] == "14 of 14"
    works("bench", path, "--work", work, "--rows", rows)
    assert read_rows(rows) == first
    works("bench", recipe(tiny, tmp_path, alpha=2.0), "--work", work, "--dry-run")
    assert len(missing(plan(read_recipe(path), "hash"), work)) == 14


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_and_started_again_it_ends_with_the_same_rows(tiny, tmp_path):
    path = recipe(tiny, tmp_path)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    works("bench", path, "--work", tmp_path / "whole", "--rows", whole)
    words = [sys.executable, "-c", "from rvpt.cli import main; main()", "bench", path, "--work", tmp_path / "cut"]
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut").glob("rows/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(process.pid)
    process.kill()  # alone: its workers end by themselves
    process.wait()
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not any(map(runs, workers))
    assert 0 < len(list((tmp_path / "cut").glob("rows/*.jsonl"))) < 8
    works("bench", path, "--work", tmp_path / "cut", "--rows", cut)
    assert lasting(read_rows(cut)) == lasting(read_rows(whole))
    assert not list((tmp_path / "cut" / "models").glob("*.run"))


def test_a_model_is_measured_before_the_next_is_begun(tiny, tmp_path):
    tasks, begun = plan(read_recipe(recipe(tiny, tmp_path)), "hash"), []

    def submit(task, work):
        begun.append(task)
        task.path(work).mkdir(parents=True)
        future = Future()
        future.set_result(0.0)
        return future

    run_all(tasks, tmp_path / "runs", submit, lambda outcome: None, at_once=1)
    assert [task.kind for task in begun] == ["attack", "measure", "measure", *["clean", "measure"] * 2] * 2
    assert {task.key for task in begun} == {task.key for task in tasks}


def test_a_part_of_a_recipe(tiny, tmp_path):
    path = recipe(tiny, tmp_path)
    whole = read_recipe(path)
    assert whole.part() == whole
    part = plan(whole.part(["both"], ["vpt"], [1]), "hash")
    assert {task.key for task in part} < {task.key for task in plan(whole, "hash")}
    assert {task.kind for task in plan(whole.part(defenses=["none"]), "hash")} == {"attack", "measure"}
    facts = json.loads(works("bench", path, "--seed", 1, "--work", tmp_path / "runs", "--dry-run", "--json"))
    assert facts["done"] == "0 of 7"
    facts = json.loads(works("bench", path, "--defense", "vpt", "--work", tmp_path / "runs", "--dry-run", "--json"))
    assert facts["done"] == "0 of 10"
    assert "no attack 'none': there are both" in refused("bench", path, "--attack", "none", "--dry-run")
    assert "no defense 'rvpt': there are none, vpt, again" in refused("bench", path, "--defense", "rvpt", "--dry-run")
    assert "no seed 7: there are 0, 1" in refused("bench", path, "--seed", 7, "--dry-run")


def test_a_killed_worker_is_one_line(tiny, tmp_path):
    tasks = plan(read_recipe(recipe(tiny, tmp_path)), "hash")
    work, told = tmp_path / "runs", []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:

        def dies(task, work):
            return pool.submit(os._exit, 9)

        assert "BrokenProcessPool" in run_all(tasks, work, dies, told.append)[0].error
        with pytest.raises(RvptError, match="a worker was killed"):
            run_all(tasks, work, dies, told.append)


def test_one_failed_run_is_told_and_the_others_go_on(tiny, tmp_path):
    extra = '[defenses.deep]\nname = "rvpt"\nshots = 1\noptions = {first_block = 9}\n'
    path, rows = recipe(tiny, tmp_path, extra=extra), tmp_path / "rows.jsonl"
    result = rvpt("bench", path, "--work", tmp_path / "runs", "--rows", rows)
    assert result.exit_code == 2
    assert "first_block 9: the model's blocks are 0 to 3" in result.stderr
    assert "4 of 18 runs did not end well" in result.stderr
    assert len({(row["defense"], row["seed"]) for row in read_rows(rows)}) == 8


def test_rows_stay_where_nothing_could_be_measured(tiny, tmp_path):
    path, rows = recipe(tiny, tmp_path), tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace("n = 20", "n = 2_000"))
    rows.write_text('{"rate": 0.5}\n')
    words = ("bench", path, "--work", tmp_path / "runs", "--rows", rows, "--seed", 0, "--defense", "none")
    result = rvpt(*words)
    assert (result.exit_code, "3 of 3 runs did not end well" in result.stderr) == (2, True)
    assert read_rows(rows) == [{"rate": 0.5}]


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ('[defenses.wash]\nname = "wash"\n', "no defense 'wash'"),
        ('[defenses.v]\nname = "vpt"\noptions = {size = 3}\n', "size: no such setting"),
        ('[attacks.x]\ntriggers = [{name = "blur"}]\n', "no trigger 'blur'"),
        ('[defenses.c]\nname = "cleanclip"\nwithout = ["sun"]\n', "cleanclip has no use for without"),
        ('[defenses.c]\nname = "par"\nshots = 3\n', "par has no use for shots"),
        ('[defenses.v]\nname = "vpt"\npairs = 30\n', "vpt has no use for pairs"),
        ('[defenses.v]\nname = "vpt"\noptions = {seed = 3}\n', "leave seed out"),
        ('[defenses.none]\nname = "vpt"\n', "'none' is what a model without a defense is called"),
        ('[defenses.p]\nname = "probe"\nwithout = ["sun"]\n', "probe knows no class that it did not learn"),
        ("[attacks.x]\n", "attacks.x.triggers: Field required"),
        ("[attacks", "is not a recipe"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_runs(tiny, tmp_path, extra, error):
    assert error in refused("bench", recipe(tiny, tmp_path, extra=extra), "--work", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ('shift = "fog"', "no shift 'fog': there are noise, blur"),
        ('template = "a photo"', "template 'a photo': it needs {}"),
        ('protocol = "lookup"', "no protocol 'lookup': there are classification, retrieval, "),
        ('only = "umbrella"', "tests.0.only: Input should be a valid list"),
    ],
)
def test_a_wrong_test_set_is_refused_before_anything_runs(tiny, tmp_path, options, error):
    path = recipe(tiny, tmp_path, tests=f'{{data = "scenes:48", {options}}}')
    assert error in refused("bench", path, "--work", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_task_that_another_bench_is_at_is_waited_for(tiny, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    task = plan(read_recipe(recipe(tiny, tmp_path)), "hash")[0]
    made, locks = task.path(tmp_path), tmp_path / "locks"
    locks.mkdir()
    with (locks / task.key).open("w") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        other = pool.submit(execute, task, tmp_path)
        assert wait([other], timeout=0.3).not_done == {other}
        made.mkdir(parents=True)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert other.result(timeout=60) < 60
    assert list(made.iterdir()) == []


def test_rows_that_could_not_be_written_are_told_before_anything_runs(tiny, tmp_path):
    line = refused("bench", recipe(tiny, tmp_path), "--work", tmp_path / "runs", "--rows", tmp_path)
    assert "is a folder, a file is needed" in line
    assert not (tmp_path / "runs").exists()


def test_a_recipe_may_say_what_it_has_otherwise_than_another(tiny, tmp_path):
    whole = read_recipe(recipe(tiny, tmp_path))
    like = tmp_path / "like.toml"
    like.write_text('like = "recipe.toml"\ntitle = "gentler"\ntrain = {lr = 1e-4}\n[defenses]\np = {name = "probe"}\n')
    found = read_recipe(like)
    assert (found.title, found.train, list(found.defenses)) == ("gentler", {"lr": 1e-4}, ["p"])
    assert found.model_dump(exclude={"title", "train", "defenses"}) == whole.model_dump(
        exclude={"title", "train", "defenses"}
    )
    for other, error in (
        ("gone.toml", "gone.toml is not a recipe"),
        ("like.toml", "has a `like` of its own"),
    ):
        like.write_text(f'like = "{other}"\n')
        assert error in refused("bench", like)


def test_a_recipe_that_is_not_there_and_an_engine_that_there_is_not(tiny, tmp_path):
    assert "gone.toml is not a recipe" in refused("bench", "gone.toml")
    assert "no engine 'cloud'" in refused("bench", recipe(tiny, tmp_path), "--engine", "cloud")


def test_workers_share_threads_and_gpus(monkeypatch):
    from rvpt.bench.engine import _shares

    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert _shares(4) == [(2, "2"), (2, "5"), (2, "7"), (2, "2")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert _shares(3) == [(2, None)] * 3


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_the_shipped_recipes_are_whole(path, monkeypatch):
    for variable in ("DATA", "CLIP", "LLAVA", "NAMES"):
        monkeypatch.setenv(variable, variable.lower())
    tasks = plan(read_recipe(path), "hash")
    assert {task.kind for task in tasks} >= {"attack", "measure"}


def test_a_recipe_has_what_the_demo_does():
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "attacks.toml")
    tasks = plan(recipe.part(["badnet-blended"], ["vpt", "rvpt"], [0]), "hash")
    attacked, preset = tasks[0].settings, presets.ATTACK["small"]
    assert (attacked["pairs"], attacked["amount"]["n"]) == (preset["pairs"], preset["poison"]["n"])
    assert [(spec["name"], spec["target"]) for spec in attacked["triggers"]] == [
        (n, demo.TARGET) for n in demo.TRIGGERS
    ]
    assert {task.settings["shots"] for task in tasks if task.kind == "clean"} == {demo.SHOTS}


def test_data_that_is_not_there_is_told_before_anything_runs(tiny, tmp_path):
    path = recipe(tiny, tmp_path, tests='{data = "scenes:48"}, {data = "/nowhere/cifar10"}')
    assert "/nowhere/cifar10 is not a folder" in refused("bench", path, "--dry-run")


def test_a_variable_that_is_not_set_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("PHOTOS", raising=False)
    path = recipe(tiny, tmp_path)
    text = path.read_text()
    for written in ("$PHOTOS/cifar10", "${PHOTOS}/cifar10"):
        path.write_text("# costs $5, or $CENTS\n" + text.replace("scenes:500", written))
        assert "needs the environment variable PHOTOS" in refused("bench", path, "--dry-run")
        with monkeypatch.context() as patch:
            patch.setenv("PHOTOS", "/there")
            assert read_recipe(path).clean_data.data == "/there/cifar10"


def test_an_address_without_its_engine_is_refused(tiny, tmp_path):
    assert "give --engine ray too" in refused("bench", recipe(tiny, tmp_path), "--address", "here")


def test_unknown_values_are_named(tmp_path):
    (tmp_path / "r.toml").write_text('title = "x"\n')
    with pytest.raises(RvptError, match=r"r\.toml: \w+: Field required"):
        read_recipe(tmp_path / "r.toml")
