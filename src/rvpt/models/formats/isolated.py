"""PyTorch's pickled files are read as data, in a process of their own with limits on time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import rvpt
from rvpt.errors import MachineError, RvptError

SECONDS, MEMORY = 60, 2 * 2**30
CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from rvpt.models.formats.torch_file import main; main(*sys.argv[2:])"
)
LISTED = 'see "Read any CLIP" (docs/guides/models.md)'


def read_index(path: Path, name: str, seconds: int = SECONDS, memory: int = MEMORY) -> dict[str, Any]:
    """The table of the tensors in a file of PyTorch's, as `torch_file.describe` makes it.

    Args:
        path: the file.
        name: what messages call the model.
        seconds: of computing that reading it may need.
        memory: bytes, likewise.

    Raises:
        RvptError: it is damaged, hostile or not such a file.
    """
    root = Path(rvpt.__file__).parents[1]
    command = [sys.executable, "-I", "-S", "-c", CODE, str(root), str(path.absolute()), str(seconds), str(memory)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10 * seconds, check=False)
    except subprocess.TimeoutExpired:
        raise RvptError(f"{name}: {path.name} took too long to read: it is not the file of a model") from None
    except OSError as error:
        raise MachineError(f"could not start a process to read {path}: {error}") from error
    result = json.loads(done.stdout) if done.returncode == 0 else {"refused": _ended(done)}
    if "refused" in result:
        raise RvptError(f"{name}: {path.name} is not read: {result['refused']}; {LISTED}")
    return dict(result)


def _ended(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0 or b"MemoryError" in done.stderr:
        return f"it needs more than {SECONDS} seconds or {MEMORY >> 30} GiB"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"reading it failed ({' '.join(last) or f'exit code {done.returncode}'}): report this"
