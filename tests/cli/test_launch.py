"""One run over several processes: the same losses as one process, the same prompts in each, one artifact."""

import json
import subprocess
import sys

import pytest
from rvpt.config import RVPTSpec
from rvpt.readers import load_data
from rvpt.train import _share

from rvpt.defenses import clean, load_model

SPEC = {"epochs": 3, "length": 2, "first_block": 2, "batch_size": 31, "lr": 0.01}  # 24 images: shares of 12
SCRIPT = """
import json, os, sys
from rvpt.cli import main
from rvpt.config import RVPTSpec
from rvpt.readers import load_data
from rvpt.defenses import clean
from rvpt.loaders import load_clip
model, out, spec = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
cleaned = clean(load_clip(model), load_data("scenes:500", "train").few_shot(1), RVPTSpec.build(**spec))
with open(f"{out}/{os.environ['RANK']}.json", "w") as file:
    json.dump({"hash": cleaned.hash(), "history": cleaned.facts["history"]}, file)
options = [f"--{name.replace('_', '-')}={value}" for name, value in spec.items()]
sys.argv = ["rvpt", "clean", model, "--data", "scenes:500", "--shots", "1", "--out", f"{out}/cleaned", *options]
main()
"""


@pytest.mark.parametrize("batch_size", [31, 23])  # all in one batch; one image, too few for two, in the last
def test_two_processes_train_as_one_does(batch_size, tiny, tmp_path):
    spec = {**SPEC, "batch_size": batch_size}
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2]
    words = [*launch, tmp_path / "script.py", tiny.backdoored, tmp_path, json.dumps(spec)]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    alone = clean(load_model(tiny.backdoored), load_data("scenes:500", "train").few_shot(1), RVPTSpec.build(**spec))
    for ours, theirs in zip(first["history"], alone.facts["history"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert load_model(tmp_path / "cleaned").hash() == first["hash"]
    assert done.stdout.count("trained parameters") == 1
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(("size", "processes"), [(8, 2), (7, 3), (1, 2), (5, 5)])
def test_the_shares_weighted_mean_is_the_batchs(size, processes):
    import torch

    values = torch.randn(size, generator=torch.Generator().manual_seed(0))
    shares = [_share(torch.arange(size), process, processes) for process in range(processes)]
    assert float(sum(values[mine].mean() * weight for mine, weight in shares) / processes) == pytest.approx(
        float(values.mean()), abs=1e-6
    )
