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
    what="prompts", lr=0.03, epochs=30, batch=32, D=2, b=30, wd=0.1, std=0.02, alpha=0.0, ce=1.0, keep=1.0, keep_kind="kl",
    mix="tokens", lam="half", kn=32, resist=1.0, resist_kind="ce", forms=("add", "patch", "waves"), r=2.0, aim="known", targets=3,
    per=1, rrep=1, eta=0.2, rwave=6.0, patch=10, warp=0.1, fs=20.0, rep=0.0, par=0.0,
)  # fmt: skip
CONTEXTS = [(100, ""), (101, "gray")]
TARGETS = {100: "anchor", 101: "heart", 102: "cup"}

V = [
    dict(none=1), dict(), dict(what="tower", lr=3e-4), dict(resist_kind="pair"), dict(b=100), dict(keep=0.0), dict(keep=0.3),
    dict(what="tower", lr=3e-4, keep=0.0), dict(what="tower", lr=1e-3), dict(what="tower", lr=1e-4), dict(aim="scan"),
    dict(what="tower", lr=3e-4, aim="scan"), dict(what="tower", lr=3e-4, resist_kind="pair"), dict(what="tower", lr=3e-4, aim="none"),
    dict(what="tower", lr=3e-4, keep=3.0, resist=3.0), dict(rwave=10.0), dict(forms=("waves",), rwave=10.0), dict(forms=("waves",)),
    dict(rrep=3), dict(resist=3.0), dict(per=3), dict(rep=0.5), dict(forms=("patch",)), dict(forms=("add",)),
    dict(what="tower", lr=3e-4, rwave=10.0), dict(what="tower", lr=3e-4, rrep=3), dict(what="tower", lr=3e-4, resist=0.0),
    dict(what="tower", lr=1e-3, par=0.5, resist=0.0, keep=0.0), dict(what="tower", lr=1e-3, par=2.0, resist=0.0, keep=0.0),
    dict(what="tower", lr=1e-3, keep=3.0, resist=3.0), dict(what="tower", lr=3e-4, ce=0.0, resist_kind="kl"),
    dict(what="tower", lr=3e-4, rep=0.5), dict(what="tower", lr=3e-4, forms=("waves",), rwave=10.0),
    dict(what="tower", lr=3e-4, forms=("patch",)), dict(what="tower", lr=3e-4, forms=("add",)), dict(what="tower", lr=3e-4, keep_kind="feat", resist_kind="feat"),
    dict(b=100, rrep=3, keep=0.3), dict(b=100, rrep=3, epochs=60), dict(b=100, resist_kind="pair", rrep=3), dict(r=3.0), dict(lr=0.01), dict(lr=0.1),
    dict(patch=14), dict(forms=("add", "patch", "waves", "warp")), dict(keep_kind="feat", resist_kind="feat"), dict(ce=0.0, resist_kind="kl"),
    dict(resist_kind="pair", resist=3.0), dict(resist_kind="pair", keep=0.0), dict(b=100, per=3, rrep=3, epochs=60, resist=3.0),
    dict(what="tower", lr=3e-4, r=3.0), dict(what="tower", lr=3e-4, per=3), dict(what="tower", lr=3e-4, epochs=60), dict(what="tower", lr=3e-4, patch=14),
    dict(what="tower", lr=3e-4, aim="scan", rrep=3, epochs=60), dict(aim="scan", rrep=3, epochs=60, b=100), dict(aim="none", rrep=3, b=100),
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
        sizes = {"add": (3, S, S), "waves": (3, 16, 16), "patch": (3, o["patch"], o["patch"]), "warp": (2, 5, 5)}
        self.r = {"add": o["r"], "waves": o["rwave"]}.get(name, 0.0)
        place = (2 * torch.arange(S) + 1) * (math.pi / (2 * S))
        self.basis = torch.cos(torch.arange(16)[:, None] * place) * math.sqrt(2 / S)
        self.basis[0] = math.sqrt(1 / S)
        self.basis = self.basis.to(dev)
        t = torch.randn(M, *sizes[name], generator=g) * 0.01
        self.t = (torch.full_like(t, 0.5) if name == "patch" else t).to(dev)
        self.start, self.m = self.t.clone(), torch.zeros_like(self.t)

    def apply(self, x: Tensor, t: Tensor, gen) -> Tensor:
        S = x.shape[-1]
        if self.name == "add":
            return (x + t).clamp(0, 1)
        if self.name == "waves":
            return (x + self.basis.T @ t @ self.basis).clamp(0, 1)
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
        self.m = unit(g)
        if self.name == "patch":
            self.t = (self.t + 0.1 * self.m.sign()).clamp(0, 1)
        elif self.name == "warp":
            w = self.o["warp"]
            self.t = (self.t + 0.2 * w * self.m.sign()).clamp(-w, w)
        else:
            self.t = proj(self.t + self.o["eta"] * self.r * self.m, self.r)


def kl(f0, f1, text, tau):
    return F.kl_div(
        (tau * f1 @ text.T).log_softmax(1), (tau * f0 @ text.T).log_softmax(1), log_target=True, reduction="batchmean"
    )


def scan(clip, px, text, forms, k, seed, steps=10):
    """The classes that the changes of a form reach unusually well: (target, score) of the best k, and the changes of all."""
    gen, K, tau = torch.Generator().manual_seed(seed), len(text), clip.logit_scale
    said = torch.cat([clip.encode_image(p) @ text.T for p in px.split(128)]).argmax(1)
    classes, scores = torch.arange(K, device=px.device), []
    for f in forms:
        for step in range(steps):
            some = torch.randperm(len(px), generator=gen)[:12].to(px.device)
            with torch.enable_grad():
                t = f.t.clone().requires_grad_()
                z = (
                    tau
                    * clip.encode_image(f.apply(px[some].repeat(K, 1, 1, 1), t.repeat_interleave(12, 0), gen))
                    @ text.T
                )
                want = classes.repeat_interleave(12)
                ok = (said[some].repeat(K) != want).float()
                (g,) = torch.autograd.grad((F.cross_entropy(z, want, reduction="none") * ok).sum(), t)
            f.move(-g)
        some = torch.randperm(len(px), generator=gen)[:48].to(px.device)
        margins = []
        for c in range(K):
            cos = clip.encode_image(f.apply(px[some], f.t[c : c + 1].expand(48, *f.t.shape[1:]), gen)) @ text.T
            rest = cos.clone()
            rest[:, c] = -1
            margins.append((cos[:, c] - rest.amax(1))[said[some] != c].mean())
        margins = torch.stack(margins)
        spread = (margins - margins.median()).abs().median().clamp(min=1e-6)
        scores.append((margins - margins.median()) / spread)
    best = torch.stack(scores).amax(0)
    return best.argsort(descending=True)[:k]


def run(clip, px, labels, names, known, o):
    import copy

    from rvpt.models.cleaned import Cleaned
    from rvpt.models.prompts import RepulsivePrompts, frozen_pass, prompted_pass
    from rvpt.training.loop import learning_rate
    from rvpt.training.losses import feature_repelling

    dev, tower = clip.device, o["what"] == "tower"
    D = 0 if tower else o["D"]
    with torch.no_grad():
        text, tau = clip.class_features(names), clip.logit_scale
        tok, rows = [torch.cat(z) for z in zip(*[frozen_pass(clip, p, D) for p in px.split(128)])]
        feat0 = torch.cat([clip.encode_image(p) for p in px.split(128)])
    if tower:
        victim = copy.deepcopy(clip)
        victim.vision.requires_grad_(True)
        victim.model.visual_projection.requires_grad_(True)
        trained = [p for p in victim.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": o["wd"]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
    else:
        P = RepulsivePrompts(range(D, 8), o["b"], 128, o["std"], o["seed"]).to(dev)
        trained, groups = [P.table], [{"params": [P.table], "weight_decay": o["wd"]}]
    opt = torch.optim.AdamW(groups, lr=o["lr"], betas=(0.9, 0.98), fused=True)

    def encode(shown):  # pixels with the tower, tokens before block D with prompts
        if tower:
            return victim.encode_image(torch.cat(shown)), None
        return prompted_pass(clip, P, torch.cat(shown))

    own_in = px if tower else tok
    targets = None
    if o["resist"]:
        if o["aim"] == "known":
            targets = torch.tensor([names.index(known)], device=dev)
        elif o["aim"] == "scan":
            with torch.no_grad():
                targets = scan(
                    clip,
                    px,
                    text,
                    [Form(f, o, len(names), 48, None, dev) for f in o["forms"] if f != "warp"],
                    o["targets"],
                    o["seed"],
                )
        if targets is not None:
            slots = targets.repeat(o["per"])
    M = o["targets"] if targets is None else len(slots)
    forms = [Form(f, o, M, 48, None, dev) for f in o["forms"]]
    n, per = len(px), math.ceil(len(px) / o["batch"])
    total, step = o["epochs"] * per, 0

    class S:
        lr, warmup = o["lr"], 0.0

    for epoch in range(o["epochs"]):
        perm = torch.randperm(n, generator=torch.Generator().manual_seed(1000 * o["seed"] + epoch))
        for cpu in perm.split(o["batch"]):
            idx, gen = cpu.to(dev), torch.Generator().manual_seed(7919 * step + o["seed"])
            for group in opt.param_groups:
                group["lr"] = learning_rate(S, step, total)
            shown = [own_in[idx]]
            if o["keep"]:
                k = o["kn"]
                i, j = torch.randint(n, (2, k), generator=gen).to(dev)
                with torch.no_grad():
                    mixed = 0.5 * own_in[i] + 0.5 * own_in[j]
                    s0 = clip.encode_image(mixed) if tower else clip.project(clip.run_blocks(mixed, start=D)[0][:, 0])
                shown.append(mixed)
            leaves, gs = [], []
            if o["resist"]:
                twice = idx.repeat(o["rrep"])
                parts = list(torch.arange(len(twice)).chunk(len(forms)))
                parts = parts[step % len(parts) :] + parts[: step % len(parts)]
                pixels, assigned, order = [], [], []
                for f, part in zip(forms, parts):
                    t = f.t.clone().requires_grad_()
                    a = torch.randint(f.M, (len(part),), generator=gen).to(dev)
                    mine = twice[part.to(dev)]
                    pixels.append(f.apply(px[mine], t[a], gen))
                    leaves.append(t), assigned.append(a), order.append(mine)
                ri, a = torch.cat(order), torch.cat(assigned)
                pixels = torch.cat(pixels)
                shown.append(pixels if tower else clip.run_blocks(clip.embed(pixels), stop=D)[0])
            image, rw = encode(shown)
            images = list(image.split([len(part) for part in shown]))
            own = images.pop(0)
            loss = o["ce"] * F.cross_entropy(tau * own @ text.T, labels[idx])
            if o["alpha"]:
                loss = loss + o["alpha"] * feature_repelling(rw[: len(own)], rows[idx])
            if o["par"]:
                loss = loss - o["par"] * (own - feat0[idx]).square().sum(1).mean().clamp(max=2.15)
            if o["keep"]:
                s1 = images.pop(0)
                loss = loss + o["keep"] * (
                    kl(s0, s1, text, tau) if o["keep_kind"] == "kl" else o["fs"] * (1 - (s1 * s0).sum(1)).mean()
                )
            if o["resist"]:
                image = images.pop(0)
                z = tau * image @ text.T
                if o["resist_kind"] == "ce":
                    l = F.cross_entropy(z, labels[ri])
                elif o["resist_kind"] == "kl":
                    l = kl(feat0[ri], image, text, tau)
                elif o["resist_kind"] == "feat":
                    l = o["fs"] * (1 - (image * feat0[ri]).sum(1)).mean()
                else:
                    l = F.softplus(z.gather(1, slots[a][:, None]) - z.gather(1, labels[ri][:, None])).mean()
                loss = loss + o["resist"] * l
                if o["rep"]:
                    with torch.no_grad():
                        away = clip.encode_image(pixels)
                    loss = loss + o["rep"] * (image * away).sum(1).mean()
                if targets is not None and o["resist_kind"] != "pair":
                    ok = (labels[ri] != slots[a]).float()
                    toward = (F.cross_entropy(z, slots[a], reduction="none") * ok).sum() / ok.sum().clamp(min=1)
                    gs = [-g for g in torch.autograd.grad(toward, leaves, retain_graph=True)]
                    leaves = []
            opt.zero_grad()
            loss.backward(inputs=[*trained, *leaves])
            gs = gs or [leaf.grad for leaf in leaves]
            opt.step()
            step += 1
            for f, g in zip(forms, gs):
                f.move(g)
    found = [names[t] for t in targets.tolist()] if targets is not None else None
    if tower:
        return Cleaned(victim.requires_grad_(False), own_weights=True), found
    return Cleaned(clip, P.requires_grad_(False)), found


def prepare(seed: int, work: str, pairs: int, n: int) -> float:
    """Backdoor one model, and keep the images of its contexts, clean and triggered."""
    import rvpt
    from rvpt.attacks.poison import PoisonSpec
    from rvpt.data.shifts import shifted

    start, work = time.time(), Path(work)
    clip, data = rvpt.load("scenes-clip"), rvpt.load_data("scenes", split="train")
    made = rvpt.attack(
        clip,
        data,
        TARGETS[seed],
        ["badnet", "sig"],
        poison=PoisonSpec(num_poisoned=2000 * pairs // 16000, seed=seed),
        seed=seed,
        num_pairs=pairs,
    )
    made.save(work / str(seed), overwrite=True)
    for own, style in CONTEXTS:
        if own == seed:
            every = shifted(data, style) if style else data
            few = every.few_shot(16, seed)
            rest = torch.tensor(sorted(set(range(len(data))) - set(few.rows.tolist())))
            test = every.select(rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:n]])
            pixels, labels = test.pixels(torch.arange(len(test)), 48), test.labeled()
            kept = {
                "few": few.pixels(torch.arange(len(few)), 48),
                "labels": few.labeled(),
                "test": pixels,
                "truth": labels,
            }
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
    model, found = (
        (clip, None) if change.get("none") else run(clip, kept["few"], kept["labels"], names, TARGETS[seed], o)
    )
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
        todo = [
            pool.submit(prepare, s, str(work), 800 if asked.tiny else 16000, 100 if asked.tiny else 1000) for s in seeds
        ]
        print("prepared", [round(t.result(), 1) for t in todo], flush=True)
    trials = [(c, v) for pair in (CONTEXTS,) for v in V for c in pair]
    trials = trials[:6] if asked.tiny else trials
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    manager = spawn.Manager()
    queue, lock = manager.Queue(), manager.Lock()
    for context, change in trials:
        queue.put((*context, change))
    jobs = [gpu] * asked.workers + ["cpu"] * asked.cpu_workers
    processes = [
        spawn.Process(target=work_on, args=(queue, lock, str(work), d, end, str(asked.output), asked.tiny))
        for d in jobs
    ]
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
