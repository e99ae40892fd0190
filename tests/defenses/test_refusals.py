"""What cleaning and evaluating refuse, in words."""

import pytest

from helpers import memory_data
from rvpt.defenses.base import clean
from rvpt.defenses.contrastive import ContrastiveSpec
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import evaluate
from rvpt.models.cleaned import Cleaned


def test_in_python_too_the_message_says_what_is_missing(clip, scenes):
    captioned = memory_data(2, captions=[["a"], ["b"]])
    with pytest.raises(RvptError, match="memory has no class labels"):
        evaluate(clip, captioned)
    with pytest.raises(RvptError, match="Cleaned is not a Clip: pass the suspect"):
        clean(Cleaned(clip), scenes)
    with pytest.raises(RvptError, match="memory has no images"):
        clean(clip, memory_data(0, captions=[]), ContrastiveSpec())
