"""Small random CLIPs in the Hugging Face layout and a few labeled images: no network, no files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's client when it is imported
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start

import pytest
import torch
from filelock import FileLock

from helpers import MakeClip, random_clip
from rvpt.data.dataset import Dataset
from rvpt.data.load import load_data
from rvpt.models.clip import Clip

if TYPE_CHECKING:
    from tiny import Tiny

torch.set_num_threads(1)  # one process per core is faster, and sums are the same on every machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `datasets` keeps goes with the tests; it is not imported before it is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """make_clip(seed=0, **vision): a new random CLIP; `vision` overrides `helpers.SMALL`."""
    return random_clip


@pytest.fixture(scope="session")
def clip() -> Clip:
    """One small CLIP for every test that leaves it as it is."""
    return random_clip()


@pytest.fixture(scope="session")
def scenes() -> Dataset:
    """Two images of each of the 24 shapes."""
    return load_data("scenes:300", "train").few_shot(2)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Tiny:
    """A pretrained, a backdoored and a cleaned model on disk, trained once for all processes of a test run."""
    from tiny import build_tiny  # it imports all components

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    with FileLock(shared / "tiny.lock"):
        return build_tiny(shared / "tiny")


@pytest.fixture
def dummies() -> Iterator[None]:
    """The plugins of `dummies.py`, registered."""
    from dummies import registered

    with registered():
        yield
