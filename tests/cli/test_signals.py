"""Ctrl-C and SIGTERM on real processes: both clean up, and a run can be resumed."""

import multiprocessing
import shutil
import signal
import subprocess
import sys

import pytest

from commands import CLEAN, has, rvpt, works
from recipes import write_recipe
from rvpt.cli.signals import Terminated, interrupt_workers
from rvpt.files import sha256_file

PROMPTS = "adapter_model.safetensors"
HINT = "rerun the command with --resume to continue"
WAITING = """
import contextlib, signal, threading
import rvpt.demo, rvpt.progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore

def wait(*_, **__):
    print("waiting", flush=True)
    threading.Event().wait()

@contextlib.contextmanager
def bar(title):
    yield wait

rvpt.progress.bar, rvpt.demo.tell = bar, wait
from rvpt.cli import main
main()
"""


def ended_by(number, *words):
    """Exit code and standard error of a process that gets a signal in the middle of its work."""
    command = [sys.executable, "-c", WAITING, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n", process.communicate()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("number", "ended"),
    [(signal.SIGINT, (130, f"interrupted; {HINT}\n")), (signal.SIGTERM, (143, f"terminated; {HINT}\n"))],
)
def test_training_keeps_its_state(tiny, home, number, ended):
    words = ["clean", tiny.backdoored, "-o", "out", *CLEAN, "--overwrite"]
    shutil.copytree(tiny.backdoored, home / "out")  # which is replaced only in the end
    assert ended_by(number, *words) == ended
    assert {path.name for path in home.iterdir()} == {"out", "out.run"}
    assert not (home / "out" / PROMPTS).exists()
    works(*words, "--resume")
    assert sha256_file(home / "out" / PROMPTS) == sha256_file(tiny.cleaned / PROMPTS)


def test_a_terminated_demo_leaves_nothing(home):
    assert ended_by(signal.SIGTERM, "demo", "-o", "demo") == (143, "terminated\n")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(("raised", "ended"), [(Terminated, (143, "terminated")), (KeyboardInterrupt, (130, "interr"))])
def test_an_interrupted_bench_interrupts_its_workers(tiny, home, monkeypatch, raised, ended):
    def terminated(*_, **__):
        raise raised

    interrupted = []
    monkeypatch.setattr("rvpt.bench.run_all", terminated)
    monkeypatch.setattr("rvpt.cli.bench.interrupt_workers", lambda: interrupted.append(True))
    result = rvpt("bench", write_recipe(tiny, home))
    assert (result.exit_code, result.stdout) == (ended[0], "")
    has(result.stderr, ended[1])
    assert interrupted == [True]


def test_workers_are_interrupted():
    worker = multiprocessing.get_context("spawn").Process(target=signal.pause)
    worker.start()
    interrupt_workers()
    worker.join(timeout=60)
    assert worker.exitcode not in (None, 0)
