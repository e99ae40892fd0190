"""Exploration of adversarial unlearning by prompts: which terms, forms and settings remove BadNet and SIG.

python benchmarks/search_unlearn.py OUTPUT.jsonl --workers 8 --seconds 270

Two models are backdoored (other seeds and targets than any reported result). Every trial cleans one of them with
16 images per class, on scenes or on scenes in a style, and is measured on 1,000 images of the training split.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor
from torch.nn import functional as F

BASE = dict(
    lr=0.03, epochs=20, batch=32, D=2, b=10, wd=0.1, std=0.02, alpha=0.0, ce=1.0, keep=1.0, keep_kind="kl", mix="tokens",
    lam="half", kn=32, resist=1.0, resist_kind="ce", forms=("add",), r=2.0, aim="scan", targets=3, eta=0.2, restart=0,
    rlow=6.0, patch=10, rtok=4.0, warp=0.1, ramp=0.0, fs=20.0, plain=0.0, mom=0.0,
)  # fmt: skip
CONTEXTS = [(100, ""), (101, "posterize"), (101, ""), (100, "noise")]
TARGETS = {100: "anchor", 101: "heart", 102: "cup"}

V = [
    dict(none=1),
    dict(b=100, epochs=40, keep=0, resist=0, lr=0.1),  # VPT
    dict(b=100, epochs=40, keep=0, resist=0, alpha=2.0),  # RVPT
    dict(), dict(b=30), dict(b=100), dict(b=4), dict(aim="none"), dict(aim="start"), dict(aim="known"),
    dict(keep_kind="feat"), dict(resist_kind="feat", aim="none"), dict(keep_kind="feat", resist_kind="feat", aim="none"),
    dict(resist_kind="kl"), dict(resist_kind="kl", aim="none"), dict(resist_kind="pair"), dict(aim="none", targets=1),
    dict(forms=("add", "low"), aim="none"), dict(forms=("add", "patch"), aim="none"), dict(forms=("tok",), aim="none"),
    dict(forms=("add", "low", "patch"), aim="none", epochs=40), dict(forms=("add", "low", "patch"), aim="none", epochs=40, r=3.0),
    dict(aim="none", epochs=50), dict(aim="none", epochs=50, lr=0.01), dict(aim="start", epochs=50),
    dict(keep=3, aim="none"), dict(keep=0, aim="none"), dict(resist=3, aim="none"), dict(resist=0.3, aim="none"), dict(keep=3, resist=3, aim="none"),
    dict(r=1.2, aim="none"), dict(r=3.0, aim="none"), dict(r=4.5, aim="none"), dict(r=4.5, keep=3, aim="none"),
    dict(lr=0.01, aim="none"), dict(lr=0.1, aim="none"), dict(alpha=0.1, aim="none"), dict(alpha=0.5, aim="none"),
    dict(forms=("add", "warp"), aim="none"), dict(forms=("add", "low", "patch", "warp"), aim="none", epochs=40), dict(forms=("low",), aim="none"),
    dict(forms=("patch",), aim="none"), dict(forms=("add", "tok"), aim="none"), dict(forms=("add", "low"), rlow=10.0, aim="none"),
    dict(forms=("add", "patch"), patch=16, aim="none"), dict(forms=("tok",), rtok=8.0, aim="none"), dict(forms=("tok",), rtok=2.0, aim="none"),
    dict(ce=0, resist_kind="kl", aim="none"), dict(ce=0, keep_kind="feat", resist_kind="feat", aim="none"), dict(ce=0.3, resist_kind="kl", aim="none"),
    dict(eta=0.5, aim="none"), dict(eta=0.07, aim="none"), dict(mom=0.8, eta=0.1, aim="none"), dict(restart=5, aim="none"),
    dict(std=0.001, aim="none"), dict(wd=0.0, aim="none"), dict(mix="pixels", aim="none"), dict(lam="uni", aim="none"), dict(kn=96, aim="none"),
    dict(plain=1.0, aim="none"), dict(plain=1.0, keep=0, aim="none"), dict(targets=6, aim="none"), dict(D=1, aim="none"), dict(D=4, aim="none"),
    dict(D=0, aim="none"), dict(ramp=0.5, aim="none"), dict(aim="all"), dict(b=30, epochs=50, aim="none"), dict(b=100, epochs=50, aim="none"),
    dict(r=3.0), dict(epochs=50), dict(b=30, epochs=50), dict(keep=3, resist=3), dict(forms=("add", "low", "patch"), epochs=40),
    dict(forms=("add", "low"), aim="start"), dict(aim="start", r=3.0), dict(aim="none", r=3.0, keep=3, resist=3, epochs=50),
]  # fmt: skip


def unit(g: Tensor) -> Tensor:
    return g / g.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (g.ndim - 1))


def proj(d: Tensor, r: float) -> Tensor:
    n = d.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (d.ndim - 1))
    return d * (r / n).clamp(max=1)


class Form:
    """A table of M changes of one form, and what they do to images."""

    def __init__(self, name: str, o: dict, M: int, S: int, shape, dev) -> None:
        self.name, self.o, self.M = name, o, M
        g = torch.Generator().manual_seed(o["seed"])
        sizes = {"add": (3, S, S), "low": (3, 8, 8), "patch": (3, o["patch"], o["patch"]), "tok": tuple(shape), "warp": (2, 5, 5)}
        self.r = {"add": o["r"], "low": o["rlow"] / (S / 8), "tok": o["rtok"]}.get(name, 0.0)
        t = torch.randn(M, *sizes[name], generator=g) * 0.01
        self.t = (torch.full_like(t, 0.5) if name == "patch" else t).to(dev)
        self.start, self.m = self.t.clone(), torch.zeros_like(self.t)

    def apply(self, x: Tensor, t: Tensor, gen) -> Tensor:
        S = x.shape[-1]
        if self.name == "add":
            return (x + t).clamp(0, 1)
        if self.name == "low":
            return (x + F.interpolate(t, size=(S, S), mode="bicubic", align_corners=False)).clamp(0, 1)
        if self.name == "patch":
            p = self.o["patch"]
            i, j = torch.randint(S - p + 1, (2, len(x)), generator=gen).to(x.device)
            r = torch.arange(S, device=x.device)
            ri, ci = r[None, :] - i[:, None], r[None, :] - j[:, None]
            inside = ((ri >= 0) & (ri < p))[:, None, :, None] & ((ci >= 0) & (ci < p))[:, None, None, :]
            n = torch.arange(len(x), device=x.device)[:, None, None, None]
            c = torch.arange(3, device=x.device)[None, :, None, None]
            full = t[n, c, ri.clamp(0, p - 1)[:, None, :, None], ci.clamp(0, p - 1)[:, None, None, :]]
            return torch.where(inside, full, x)
        flow = F.interpolate(t, size=(S, S), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        line = torch.linspace(-1, 1, S, device=x.device)
        yy, xx = torch.meshgrid(line, line, indexing="ij")
        return F.grid_sample(x, torch.stack([xx, yy], -1)[None] + flow, align_corners=True, padding_mode="border")

    def move(self, g: Tensor) -> None:
        self.m = self.o["mom"] * self.m + unit(g)
        if self.name == "patch":
            self.t = (self.t + 0.1 * self.m.sign()).clamp(0, 1)
        elif self.name == "warp":
            w = self.o["warp"]
            self.t = (self.t + 0.2 * w * self.m.sign()).clamp(-w, w)
        else:
            self.t = proj(self.t + self.o["eta"] * self.r * self.m, self.r)


def kl(f0, f1, text, tau):
    return F.kl_div((tau * f1 @ text.T).log_softmax(1), (tau * f0 @ text.T).log_softmax(1), log_target=True, reduction="batchmean")


def scan(clip, pixels, text, k, seed):
    from rvpt.inversion.additive import InversionSpec, Pool, invert, radius, reached

    spec = InversionSpec(seed=seed)
    pool = Pool.of(clip, pixels, text)
    limit, classes = radius(spec.budget, pixels.shape[1:]), torch.arange(len(text), device=pixels.device)
    d = invert(pool, classes, torch.zeros(len(text), *pixels.shape[1:], device=pixels.device), limit, spec.steps, spec.images, spec)
    best = reached(pool, classes, d).margins.argsort(descending=True)[:k]
    return best, d[best]


def run(clip, px, labels, names, known, o):
    from rvpt.models.prompts import RepulsivePrompts, frozen_pass, prompted_pass
    from rvpt.training.loop import learning_rate
    from rvpt.training.losses import feature_repelling

    dev = clip.device
    with torch.no_grad():
        text, tau = clip.class_features(names), clip.logit_scale
        tok, rows = [torch.cat(z) for z in zip(*[frozen_pass(clip, p, o["D"]) for p in px.split(128)])]
        feat0 = torch.cat([clip.encode_image(p) for p in px.split(128)])
    P = RepulsivePrompts(range(o["D"], 8), o["b"], 128, o["std"], o["seed"]).to(dev)
    opt = torch.optim.AdamW(P.parameters(), lr=o["lr"], weight_decay=o["wd"], betas=(0.9, 0.98), fused=True)
    targets, begun = None, None
    if o["resist"]:
        if o["aim"] == "scan":
            targets, _ = scan(clip, px, text, o["targets"], o["seed"])
        elif o["aim"] == "start":  # begin at the changes of the scan, then move away from the labels
            _, begun = scan(clip, px, text, o["targets"], o["seed"])
        elif o["aim"] == "known":
            targets = torch.tensor([names.index(known)], device=dev)
        elif o["aim"] == "all":
            targets = torch.arange(len(names), device=dev)
    M = o["targets"] if targets is None else len(targets)
    forms = [Form(f, o, M, 48, tok.shape[1:], dev) for f in o["forms"]]
    if begun is not None:
        for f in forms:
            if f.name == "add":
                f.t = proj(begun * 100, f.r)
                f.start = f.t.clone()
    n, per = len(px), math.ceil(len(px) / o["batch"])
    total, step = o["epochs"] * per, 0

    class S:
        lr, warmup = o["lr"], 0.0

    for epoch in range(o["epochs"]):
        if o["restart"] and epoch % o["restart"] == 0:
            for f in forms:
                f.t = f.start.clone()
        perm = torch.randperm(n, generator=torch.Generator().manual_seed(1000 * o["seed"] + epoch))
        for cpu in perm.split(o["batch"]):
            idx, gen = cpu.to(dev), torch.Generator().manual_seed(7919 * step + o["seed"])
            for group in opt.param_groups:
                group["lr"] = learning_rate(S, step, total)
            loss, gs = torch.zeros((), device=dev), []
            if o["ce"] or o["alpha"] or o["plain"]:
                image, rw = prompted_pass(clip, P, tok[idx])
                loss = loss + o["ce"] * F.cross_entropy(tau * image @ text.T, labels[idx])
                if o["alpha"]:
                    loss = loss + o["alpha"] * feature_repelling(rw, rows[idx])
                if o["plain"]:
                    loss = loss + o["plain"] * kl(feat0[idx], image, text, tau)
            if o["keep"]:
                k = o["kn"]
                i, j = torch.randint(n, (2, k), generator=gen).to(dev)
                lam = torch.rand(k, 1, 1, generator=gen).to(dev) if o["lam"] == "uni" else 0.5
                with torch.no_grad():
                    if o["mix"] == "tokens":
                        mixed = lam * tok[i] + (1 - lam) * tok[j]
                    else:
                        mixed, _ = clip.run_blocks(clip.embed(0.5 * px[i] + 0.5 * px[j]), stop=o["D"])
                    s0 = clip.project(clip.run_blocks(mixed, start=o["D"])[0][:, 0])
                s1, _ = prompted_pass(clip, P, mixed)
                loss = loss + o["keep"] * (kl(s0, s1, text, tau) if o["keep_kind"] == "kl" else o["fs"] * (1 - (s1 * s0).sum(1)).mean())
            if o["resist"]:
                parts = list(torch.arange(len(idx)).chunk(len(forms)))
                parts = parts[step % len(parts):] + parts[: step % len(parts)]
                leaves, toks, assigned, order = [], [], [], []
                for f, part in zip(forms, parts):
                    t = f.t.clone().requires_grad_()
                    a = torch.randint(f.M, (len(part),), generator=gen).to(dev)
                    mine = idx[part.to(dev)]
                    shown = tok[mine] + t[a] if f.name == "tok" else clip.run_blocks(clip.embed(f.apply(px[mine], t[a], gen)), stop=o["D"])[0]
                    leaves.append(t), toks.append(shown), assigned.append(a), order.append(mine)
                ri, a = torch.cat(order), torch.cat(assigned)
                image, _ = prompted_pass(clip, P, torch.cat(toks))
                z = tau * image @ text.T
                if o["resist_kind"] == "ce":
                    l = F.cross_entropy(z, labels[ri])
                elif o["resist_kind"] == "kl":
                    l = kl(feat0[ri], image, text, tau)
                elif o["resist_kind"] == "feat":
                    l = o["fs"] * (1 - (image * feat0[ri]).sum(1)).mean()
                else:
                    l = F.softplus(z.gather(1, targets[a][:, None]) - z.gather(1, labels[ri][:, None])).mean()
                if targets is None or o["resist_kind"] == "pair":
                    gs = torch.autograd.grad(l, leaves, retain_graph=True)
                else:
                    ok = (labels[ri] != targets[a]).float()
                    toward = (F.cross_entropy(z, targets[a], reduction="none") * ok).sum() / ok.sum().clamp(min=1)
                    gs = [-g for g in torch.autograd.grad(toward, leaves, retain_graph=True)]
                loss = loss + o["resist"] * (min(1.0, step / total / o["ramp"]) if o["ramp"] else 1.0) * l
            opt.zero_grad()
            loss.backward(inputs=[P.table])
            opt.step()
            step += 1
            for f, g in zip(forms, gs):
                f.move(g)
    from rvpt.models.cleaned import Cleaned

    return Cleaned(clip, P.requires_grad_(False)), [names[t] for t in targets.tolist()] if targets is not None else None


def prepare(seed: int, work: str, pairs: int, n: int) -> float:
    """Backdoor one model, and keep the images of its contexts, clean and triggered."""
    import rvpt
    from rvpt.attacks.poison import PoisonSpec
    from rvpt.data.shifts import shifted

    start, work = time.time(), Path(work)
    clip, data = rvpt.load("scenes-clip"), rvpt.load_data("scenes", split="train")
    made = rvpt.attack(clip, data, TARGETS[seed], ["badnet", "sig"], poison=PoisonSpec(num_poisoned=2000 * pairs // 16000, seed=seed), seed=seed, num_pairs=pairs)
    made.save(work / str(seed), overwrite=True)
    for own, style in CONTEXTS:
        if own == seed:
            every = shifted(data, style) if style else data
            few = every.few_shot(16, seed)
            rest = torch.tensor(sorted(set(range(len(data))) - set(few.rows.tolist())))
            test = every.select(rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:n]])
            pixels, labels = test.pixels(torch.arange(len(test)), 48), test.labeled()
            kept = {"few": few.pixels(torch.arange(len(few)), 48), "labels": few.labeled(), "test": pixels, "truth": labels}
            kept |= {f"with/{name}": trigger(pixels, test.rows) for name, trigger in made.triggers.items()}
            torch.save(kept, work / f"{seed}-{style}.pt")
    return time.time() - start


def trial(seed: int, style: str, change: dict, work: str, device: str, tiny: bool) -> dict:
    import rvpt

    torch.set_num_threads(1)
    start = time.time()
    clip = rvpt.load(str(Path(work) / str(seed)), device=device).requires_grad_(False)
    kept = {k: v.to(device) for k, v in torch.load(Path(work) / f"{seed}-{style}.pt").items()}
    names = rvpt.load_data("scenes:30", split="train").classes
    o = {**BASE, **change, "seed": seed, **({"epochs": 1} if tiny else {})}
    model, found = (clip, None) if change.get("none") else run(clip, kept["few"], kept["labels"], names, TARGETS[seed], o)
    middle = time.time()
    row, target = dict[str, float](), names.index(TARGETS[seed])
    with torch.inference_mode():
        text = clip.class_features(names)
        for name in [k for k in kept if k == "test" or k.startswith("with/")]:
            said = torch.cat([model.encode_image(p) @ text.T for p in kept[name].split(500)]).argmax(1)
            right = (said == kept["truth"]).float().mean()
            others = kept["truth"] != target
            if name == "test":
                row["CA"] = round(100 * float(right), 1)
            else:
                row["PA " + name[5:]] = round(100 * float(right), 1)
                row["ASR " + name[5:]] = round(100 * float((said[others] == target).float().mean()), 1)
    return {"seed": seed, "style": style, **row, "targets": found, "clean_s": round(middle - start, 1),
            "eval_s": round(time.time() - middle, 1), "device": device, "set": change}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--workers", type=int, default=8, help="processes on the GPU if there is one, else on the CPU")
    parser.add_argument("--cpu-workers", type=int, default=0, help="further processes, on the CPU")
    parser.add_argument("--seconds", type=float, default=270)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    end, work = time.time() + asked.seconds, Path(tempfile.mkdtemp())
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    seeds = sorted({seed for seed, _ in CONTEXTS})
    spawn = get_context("spawn")
    with ProcessPoolExecutor(len(seeds), mp_context=spawn) as pool:
        todo = [pool.submit(prepare, s, str(work), 800 if asked.tiny else 16000, 100 if asked.tiny else 1000) for s in seeds]
        print("prepared", [round(t.result(), 1) for t in todo], flush=True)
    trials = [(c, v) for pair in (CONTEXTS[:2], CONTEXTS[2:]) for v in V for c in pair]
    trials = trials[:6] if asked.tiny else trials
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    manager = spawn.Manager()
    queue, lock = manager.Queue(), manager.Lock()
    for context, change in trials:
        queue.put((*context, change))
    jobs = [gpu] * asked.workers + ["cpu"] * asked.cpu_workers
    processes = [spawn.Process(target=work_on, args=(queue, lock, str(work), d, end, str(asked.output), asked.tiny)) for d in jobs]
    for p in processes:
        p.start()
    for p in processes:
        p.join()


def work_on(queue, lock, work, device, end, output, tiny) -> None:
    longest = 0.0
    while time.time() + longest < end:
        try:
            seed, style, change = queue.get_nowait()
        except Exception:
            return
        start = time.time()
        try:
            row = trial(seed, style, change, work, device, tiny)
        except Exception as error:
            row = {"seed": seed, "style": style, "set": change, "error": f"{type(error).__name__}: {error}"}
        longest = time.time() - start
        with lock, open(output, "a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
