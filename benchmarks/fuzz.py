"""Feed damaged and hostile files to the readers of weights, and count what comes of it.

nice -n 19 python benchmarks/fuzz.py --inputs 100000 --output rows/fuzz.jsonl

Valid files of each format are small; each input is one of them with bytes changed, cut, repeated or replaced by numbers
that break parsers. In half of the zip archives only the pickle is changed. An input is loaded, refused (RvptError,
Refused), or a failure: crashed (any other exception), hung (more than --seconds), ran (an audit event of running code
or of starting a process, or the file that the payload would write).
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from rvpt import __version__
from rvpt.errors import RvptError
from rvpt.models.formats.pickle_reader import Refused
from rvpt.models.formats.torch_file import describe
from rvpt.models.formats.weights import read_weights
from rvpt.rows import append_rows

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF]
TOKENS = [b"cposix\nsystem\n", b"cbuiltins\neval\n", b"(", b"t", b"R", b".", b"b", b"0", b"2", b"\x8a", b"\x8d", b"Q"]
RUNNING = frozenset({"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class"})
MEMORY = 6 * 2**30
events: list[str] = []


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.place, "w")


class Small(torch.nn.Module):
    """Something to script."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def seeds(ran: str) -> dict[str, list[bytes]]:
    """Valid files of each format, and files that would run code."""
    weights = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(3).half(), "scale": torch.tensor(1.0)}
    whole = {"epoch": 1, "state_dict": weights, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "lr": [0.1]}}
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(Small()), scripted)
    return {
        "zip": [saved(weights), saved(whole), saved({**whole, "x": Payload(ran)})],
        "legacy": [saved(weights, old=True), saved({"x": Payload(ran)}, old=True)],
        "TorchScript": [scripted.getvalue()],
        "safetensors": [save(weights)],
    }


def saved(value: Any, *, old: bool = False) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four small changes."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        rng.choice(CHANGES)(out, rng)
    return bytes(out)


def flip(out: bytearray, rng: random.Random) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def cut(out: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(out) + 1)
    del out[start : rng.choice([len(out), start + rng.randint(1, 64)])]


def repeat(out: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(out) + 1)
    out[start:start] = out[start : start + rng.randint(1, 64)] * rng.randint(1, 3)


def number(out: bytearray, rng: random.Random) -> None:
    packed = struct.pack("<Q", rng.choice(NUMBERS))[: rng.choice([1, 2, 4, 8])]
    start = rng.randrange(len(out) + 1)
    out[start : start + len(packed)] = packed


def token(out: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(out) + 1)
    out[start:start] = rng.choice(TOKENS)


CHANGES: list[Callable[[bytearray, random.Random], None]] = [flip, cut, repeat, number, token]


def repacked(data: bytes, rng: random.Random) -> bytes:
    """A zip archive whose pickle is changed and whose checksums are right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            body = old.read(entry)
            new.writestr(entry.filename, mutate(body, rng) if entry.filename.endswith("/data.pkl") else body)
    return target.getvalue()


def read(path: Path) -> None:
    """What `rvpt.load` does with a file of weights, in this process."""
    if path.suffix == ".safetensors":
        for stored in read_weights(path, "input").weights.values():
            stored.read()
    else:
        describe(path)


def outcome(data: bytes, path: Path, seconds: int, ran: Path) -> str:
    """What came of one input."""
    path.write_bytes(data)
    events.clear()
    signal.alarm(seconds)
    try:
        read(path)
        result = "loaded"
    except (Refused, RvptError):
        result = "refused"
    except TimeoutError:
        result = "hung"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        result = f"crashed: {type(error).__name__}"
    finally:
        signal.alarm(0)
    return "ran" if events or ran.exists() else result


def watch() -> None:
    """Note events of running code, and turn alarms into exceptions."""
    sys.addaudithook(lambda event, _: events.append(event) if event in RUNNING else None)
    signal.signal(signal.SIGALRM, _expired)


def _expired(*_: Any) -> None:
    raise TimeoutError


def fuzz(kind: str, files: list[bytes], inputs: int, seed: int, folder: Path, seconds: int = 10) -> dict[str, Any]:
    """A row with the counts for one format."""
    rng, counts, start = random.Random(f"{kind} {seed}"), Counter[str](), time.perf_counter()
    path = folder / ("input.safetensors" if kind == "safetensors" else "input.pt")
    for _ in range(inputs):
        data = rng.choice(files)
        zipped = kind in ("zip", "TorchScript") and rng.random() < 0.5
        changed = repacked(data, rng) if zipped else mutate(data, rng)
        result = outcome(changed, path, seconds, folder / "ran")
        counts[result] += 1
        if result not in ("loaded", "refused"):
            (folder / f"{kind}-{result.split(':')[0]}-{counts[result]}").write_bytes(changed)
    failures = {name: count for name, count in counts.items() if name not in ("loaded", "refused")}
    return {
        "what": "fuzz", "format": kind, "inputs": inputs, "seed": seed, "loaded": counts["loaded"],
        "refused": counts["refused"], "failures": failures, "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "python": sys.version.split()[0], "torch": torch.__version__, "version": __version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=100_000, help="in all; divided among the formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=10, help="from which an input counts as hung")
    parser.add_argument("--output", type=Path, help="file of rows to append to")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rvpt-fuzz-"))
    files = seeds(str(folder / "ran"))
    pickle.loads(pickle.dumps(Payload(str(folder / "ran")))).close()  # the payload works
    (folder / "ran").unlink()
    watch()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rows = []
    for kind, found in files.items():
        rows.append(fuzz(kind, found, -(-options.inputs // len(files)), options.seed, folder, options.seconds))
        print(rows[-1], flush=True)
    if options.output:
        append_rows(options.output, rows)
    failed = sum(sum(row["failures"].values()) for row in rows)
    print(f"{sum(row['inputs'] for row in rows):,} inputs, {failed} failures; those are kept in {folder}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
