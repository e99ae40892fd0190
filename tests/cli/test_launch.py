"""One run in several processes: the same losses as in one process, the same prompts in each, one artifact."""

import json
import subprocess
import sys

import pytest

from rvpt.data.load import load_data
from rvpt.defenses.base import clean
from rvpt.models.cleaned import Cleaned
from rvpt.models.formats.load import load_clip

SETTINGS = {"epochs": 3, "prompt_length": 2, "first_block": 2, "lr": 0.01}
BATCHES = (31, 23)  # of 24 images: all in one batch; one image, too few for two processes, in the last batch
SCRIPT = """
import json, os, sys
import rvpt
from rvpt.cli import main

model, out, settings, batches = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
found = []
for batch_size in batches:
    few_shot = rvpt.load_data("scenes:500", "train").few_shot(1)
    cleaned = rvpt.clean(rvpt.load(model), few_shot, **settings, batch_size=batch_size)
    found.append({"hash": cleaned.hash(), "history": cleaned.facts["history"]})
with open(f"{out}/{os.environ['RANK']}.json", "w") as file:
    json.dump(found, file)
sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
words = ["--data", "scenes:500", "--shots", "1", "-o", f"{out}/cleaned", *sets, "--set", f"batch_size={batches[0]}"]
sys.argv = ["rvpt", "clean", model, *words]
main()
"""


def test_two_processes_train_as_one_does(tiny, home):
    (home / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [home / "script.py", tiny.backdoored, home, json.dumps(SETTINGS), json.dumps(BATCHES)]
    done = subprocess.run([*launch, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((home / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    few_shot = load_data("scenes:500", "train").few_shot(1)
    for batch_size, ours in zip(BATCHES, first, strict=True):
        alone = clean(load_clip(tiny.backdoored), few_shot, **SETTINGS, batch_size=batch_size)
        for mine, theirs in zip(ours["history"], alone.facts["history"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
    assert Cleaned.from_pretrained(home / "cleaned").hash() == first[0]["hash"]
    assert done.stdout.count("trained parameters") == 1
    assert not list(home.glob(".*.partial"))
