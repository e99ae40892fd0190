"""Plans: a recipe as tasks, each once, in an order in which each finds what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import write_recipe
from rvpt import demo
from rvpt.attacks.backdoor import PRESETS
from rvpt.bench import Task, plan, read_recipe
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.models.formats.load import EMBEDDED, load_clip
from tiny import Tiny

SHIPPED = sorted(Path(__file__).parents[2].glob("recipes/*.toml"))


@pytest.fixture(scope="module")
def clean(tiny: Tiny) -> Clip:
    return load_clip(tiny.clip)


def titles(tasks: list[Task], kind: str, word: str = "") -> list[str]:
    return [task.title for task in tasks if task.kind == kind and word in task.title]


def test_shared_work_is_done_once_and_keys_depend_on_all_settings(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path)), clean)
    kinds = [task.kind for task in tasks]
    assert (kinds.count("attack"), kinds.count("clean"), kinds.count("measure")) == (2, 4, 8)
    keys = {task.key for task in tasks}
    assert len(keys) == len(tasks)
    other = plan(read_recipe(write_recipe(tiny, tmp_path, alpha=2.0)), clean)
    assert len(keys & {task.key for task in other}) == len(tasks) - 4  # a cleaning and a measurement for each seed


def test_keys_depend_on_the_weights_of_the_model(
    tiny: Tiny, clean: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(write_recipe(tiny, tmp_path))
    before = {task.key for task in plan(recipe, clean)}
    monkeypatch.setattr(Clip, "hash", lambda self: "another")
    assert not before & {task.key for task in plan(recipe, clean)}


def test_a_part_has_the_keys_of_the_whole(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    whole = read_recipe(write_recipe(tiny, tmp_path))
    part = plan(whole.part(["both"], ["vpt"], [1]), clean)
    assert {task.key for task in part} < {task.key for task in plan(whole, clean)}
    assert {task.kind for task in plan(whole.part(defenses=["none"]), clean)} == {"attack", "measure"}


def test_settings_come_from_the_attack_the_recipe_and_the_preset(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    path = write_recipe(tiny, tmp_path)
    path.write_text("num_pairs = 100\ntrain = { epochs = 7, lr = 2e-3 }\n" + path.read_text())
    attack = plan(read_recipe(path), clean)[0].settings
    spec = attack["spec"]
    assert (attack["num_pairs"], spec["epochs"], spec["lr"], spec["batch_size"]) == (100, 1, 2e-3, 128)


CLEAN = """
[attacks.clean]
triggers = []
seeds = [1]
without = ["umbrella"]
"""


def test_an_attack_may_have_no_trigger_some_seeds_and_fewer_classes(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path, extra=CLEAN)), clean)
    assert titles(tasks, "attack", "clean") == ["clip+clean, seed 1"]
    (task,) = (task for task in tasks if task.kind == "attack" and "clean" in task.title)
    assert (task.settings["triggers"], task.settings["without"]) == ([], ["umbrella"])
    others = {task.key for task in plan(read_recipe(write_recipe(tiny, tmp_path)), clean)}
    assert others < {task.key for task in tasks}


def test_an_attacker_who_knows_a_defense_has_keys_of_its_own(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    extra = '[attacks.evading]\ntriggers = [{ name = "badnet", place = "middle" }, { name = "blended" }]\n'
    extra += 'poison = { num_poisoned = 20 }\ntrain = { epochs = 1 }\nevade = { name = "changes", images = 8 }\n'
    attacks = [t for t in plan(read_recipe(write_recipe(tiny, tmp_path, extra=extra)), clean) if t.kind == "attack"]
    plain, evading = (task.settings for task in attacks[:2])
    assert evading == {**plain, "evade": {"name": "changes", "weight": 1.0, "images": 8, "forms": FORMS_OF_UNLEARN}}


def test_test_sets_are_told_apart(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    tests = '{ data = "scenes" }, { data = "scenes:48", only = ["umbrella"], shift = "gray" }'
    found = titles(plan(read_recipe(write_recipe(tiny, tmp_path, tests=tests)), clean), "measure")
    assert len(set(found)) == 16
    assert found[1] == "clip+both, seed 0, before the attack, on scenes:48 (only umbrella) (gray)"


def test_a_defense_with_a_head_is_measured_on_the_classes_that_it_knows(
    tiny: Tiny, clean: Clip, tmp_path: Path
) -> None:
    tests = '{ data = "scenes:500" }, { data = "scenes:48" }, { data = "scenes:500", protocol = "retrieval" }'
    path = write_recipe(tiny, tmp_path, extra='[defenses.probe]\nname = "probe"\n', tests=tests)
    tasks = plan(read_recipe(path).part(seeds=[0]), clean)
    assert titles(tasks, "measure", "probe") == ["clip+both, seed 0, probe, on scenes:500"]
    assert len(titles(tasks, "measure", "again")) == 3


def test_an_attack_with_tests_of_its_own_is_measured_on_these_only(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    other = '[attacks.other]\ntriggers = [{ name = "sig" }]\ntests = [{ data = "scenes:72" }]\n'
    own = other + '[defenses.probe]\nname = "probe"\n'
    path = write_recipe(tiny, tmp_path, extra=own, tests='{ data = "scenes:500" }')
    tasks = plan(read_recipe(path).part(seeds=[0]), clean)
    assert titles(tasks, "measure", "clip+other") == [
        f"clip+other, seed 0, {label}, on scenes:72" for label in ("before the attack", "none", "vpt", "again")
    ]
    assert len(titles(tasks, "measure", "on scenes:500")) == 5
    # The probe of the other attack could not be measured.
    assert titles(tasks, "clean", "probe") == ["clip+both, seed 0, probe"]


def test_a_defense_may_have_its_own_data_tests_and_preset(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    own = """[defenses.own]
name = "rvpt"
preset = "coop"
data = { data = "scenes:500", shift = "blur" }
tests = [{ data = "scenes:48", shift = "blur" }]
"""
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path, extra=own)).part(seeds=[0]), clean)
    assert titles(tasks, "measure", " own") == ["clip+both, seed 0, own, on scenes:48 (blur)"]
    (cleaning,) = (task.settings for task in tasks if task.kind == "clean" and task.title.endswith("own"))
    assert (cleaning["data"]["shift"], cleaning["spec"]["augment"]) == ("blur", "crop-flip")
    assert len(titles(tasks, "measure", "(blur)")) == 1


def test_every_run_has_the_seed_of_its_title(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    extra = '[attacks.a]\ntriggers = [{ name = "trojvqa", epochs = 1, images = 32 }]\n'
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path, extra=extra)), clean)
    assert {task.kind for task in tasks} == {"craft", "attack", "clean", "measure"}
    assert all(f"seed {task.seed}" in task.title for task in tasks)


def test_keys_stay_where_no_shift_is_used(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    path = write_recipe(tiny, tmp_path)
    plain = plan(read_recipe(path), clean)
    assert not [task for task in plain if "shift" in str(task.settings)]
    path.write_text(path.read_text().replace('"scenes:500" }', '"scenes:500", shift = "gray" }'))
    keys = {task.key for task in plan(read_recipe(path), clean)}
    assert {task.kind for task in plain if task.key not in keys} == {"clean", "measure"}


def test_a_defense_may_be_run_against_some_attacks_only(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    other = '[attacks.other]\ntriggers = [{ name = "sig" }]\n[defenses.own]\nname = "vpt"\nattacks = ["other"]\n'
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path, extra=other)).part(seeds=[0]), clean)
    assert titles(tasks, "clean", "own") == ["clip+other, seed 0, own"]


def test_a_crafted_trigger_is_made_once_for_all_attacks_that_have_it(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    trigger = '{ name = "trojvqa", epochs = 1, images = 32 }'
    extra = f'[attacks.a]\ntriggers = [{trigger}, {{ name = "sig" }}]\n[attacks.b]\ntriggers = [{trigger}]\n'
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path, extra=extra)).part(seeds=[0]), clean)
    assert titles(tasks, "craft") == ["trojvqa for clip, seed 0"]
    (craft,) = [task for task in tasks if task.kind == "craft"]
    assert [task.crafts for task in tasks if task.kind == "attack"] == [(), (craft,), (craft,)]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('[defenses.wash]\nname = "wash"\n', "unknown defense 'wash'"),
        ('[defenses.v]\nname = "vpt"\noptions = { size = 3 }\n', "size: unknown setting"),
        ('[defenses.v]\nname = "par"\npreset = "coop"\n', "unknown preset 'coop': choose from auto, paper, small"),
        ('[attacks.x]\ntriggers = [{ name = "blur" }]\n', "unknown trigger 'blur'"),
        (
            '[attacks.x]\ntriggers = [{ name = "sig" }, { name = "sig", target = "sun" }]\n',
            "two triggers have the same name",
        ),
        ("[attacks.x]\ntriggers = [{ size = 3 }]\n", "unknown trigger ''"),
        ('[attacks.x]\ntriggers = [{ name = "sig", size = 3 }]\n', "size: unknown setting"),
        ('[attacks.x]\ntriggers = [{ name = "sig" }]\npoison = { n = 3 }\n', "n: unknown setting"),
        ('[attacks.x]\ntriggers = [{ name = "sig" }]\ntrain = { rate = 3 }\n', "rate: unknown setting"),
        ('[attacks.x]\ntriggers = [{ name = "sig" }]\nevade = { alpha = 3 }\n', "unknown evasion ''"),
        (
            '[attacks.x]\ntriggers = [{ name = "sig" }]\nevade = { name = "changes", alpha = 3 }\n',
            "alpha: unknown setting",
        ),
        ('[defenses.c]\nname = "cleanclip"\nwithout = ["sun"]\n', "cleanclip learns from captions: remove without"),
        ('[defenses.c]\nname = "par"\nshots = 3\n', "par learns from captions: remove shots"),
        ('[defenses.v]\nname = "vpt"\nnum_pairs = 30\n', "vpt learns from labels: remove num_pairs"),
        ('[defenses.p]\nname = "probe"\nwithout = ["sun"]\n', "probe cannot be evaluated on unseen classes"),
        (
            '[defenses.h]\nname = "rvpt"\nwithout = ["sun"]\noptions = { head = true }\n',
            "rvpt cannot be evaluated on unseen classes",
        ),
        (
            '[defenses.u]\nname = "unlearn"\nwithout = ["sun"]\noptions = { labels = "predicted" }\n',
            "images without labels cannot be left out by class: remove without",
        ),
        ('[defenses.h]\nname = "vpt"\noptions = { head_lr = 0.1 }\n', "head_lr is given, but no classifier"),
        ('[defenses.p]\nname = "probe"\ndata = { data = "/nowhere/cifar10" }\n', "/nowhere/cifar10 is not a folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    tiny: Tiny, clean: Clip, tmp_path: Path, extra: str, message: str
) -> None:
    named = "" if "/nowhere" in message else r"^small: (attacks|defenses)\.\w+: "
    with pytest.raises(RvptError, match=named + message):
        plan(read_recipe(write_recipe(tiny, tmp_path, extra=extra)), clean)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_can_be_planned(path: Path, clean: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DATA", "CLIP", "LLAVA", "NAMES"):
        monkeypatch.setenv(variable, variable.lower())
    tasks = plan(read_recipe(path), clean)
    assert {task.kind for task in tasks} >= {"attack", "measure"}
    assert len(set(titles(tasks, "measure"))) == len(titles(tasks, "measure"))


def test_a_recipe_does_what_the_demo_does() -> None:
    recipe = read_recipe(SHIPPED[0].with_name("attacks.toml"))
    tasks = plan(recipe.part(["badnet-blended"], ["vpt", "rvpt"], [0]), load_clip(EMBEDDED))
    attack, preset = tasks[0].settings, PRESETS["small"]
    assert attack["num_pairs"] == preset["num_pairs"]
    assert attack["poison"]["num_poisoned"] == preset["num_poisoned"]
    assert [(spec["name"], spec["target"]) for spec in attack["triggers"]] == [
        (name, demo.TARGET) for name in demo.TRIGGERS
    ]
    assert {task.settings["shots"] for task in tasks if task.kind == "clean"} == {demo.SHOTS}


FORMS_OF_UNLEARN = ("additive", "patch", "warp", "grating")
CHECK = """
[check]
data = "scenes:60"
options = { finalists = 24, num_images = 40, steps = 1 }
"""


def test_models_without_a_defense_are_checked_if_the_recipe_says_so(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    plain = plan(read_recipe(write_recipe(tiny, tmp_path)), clean)
    checked = plan(read_recipe(write_recipe(tiny, tmp_path, extra=CHECK)), clean)
    assert titles(checked, "check") == [f"check of clip+both, seed {seed}" for seed in (0, 1)]
    assert {task.key for task in checked if task.kind != "check"} == {task.key for task in plain}


MODIFIED = """
[modifications]
pruned = { name = "prune", options = { share = 0.4 } }
tuned = { name = "finetune", num_pairs = 50, options = { times = 2 }, defenses = ["again"] }
"""


def test_cleaned_models_are_measured_after_each_modification(tiny: Tiny, clean: Clip, tmp_path: Path) -> None:
    tasks = plan(read_recipe(write_recipe(tiny, tmp_path, extra=MODIFIED)), clean)
    plain = {task.key for task in plan(read_recipe(write_recipe(tiny, tmp_path)), clean)}
    added = [task for task in tasks if task.key not in plain]
    assert plain < {task.key for task in tasks}
    assert [task.title for task in added if "seed 1" in task.title] == [
        "clip+both, seed 1, vpt, on scenes:48, pruned",
        "clip+both, seed 1, again, on scenes:48, pruned",
        "clip+both, seed 1, again, on scenes:48, tuned",
    ]
    change = added[-1].settings["modification"]
    assert (change["name"], change["num_pairs"], change["data"]) == ("finetune", 50, "scenes:500")
    assert change["options"] == {"times": 2, "seed": 1}
    assert added[0].settings["modification"]["options"] == {"share": 0.4}
    assert added[-1].start is not None
    assert added[-1].start.kind == "clean"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('x = { name = "burn" }', "small: modifications.x: unknown modification 'burn': choose from finetune"),
        ('x = { name = "prune", options = { temperature = 1 } }', "temperature: unknown setting"),
        ('x = { name = "fp16", options = { bits = 8 } }', "bits: unknown setting: there are none: remove it"),
        ('x = { name = "finetune", options = { seed = 1 } }', "remove seed"),
    ],
)
def test_a_modification_that_does_not_fit_is_refused(
    entry: str, message: str, tiny: Tiny, clean: Clip, tmp_path: Path
) -> None:
    with pytest.raises(RvptError, match=message):
        plan(read_recipe(write_recipe(tiny, tmp_path, extra=f"[modifications]\n{entry}\n")), clean)
