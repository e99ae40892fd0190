"""ISSBA: a faint change, another for each picture, that hides a text (Li et al., ICCV 2021).

An encoder changes the picture so that a decoder can read the bits again (Tancik, Mildenhall and Ng, CVPR 2020,
StegaStamp). Both are trained here, on pictures of the model that is attacked.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.attacks.trigger import Trigger
from rvpt.clip import Clip
from rvpt.config import TrainSpec, TriggerSpec
from rvpt.data import ImageData
from rvpt.progress import Report, silent
from rvpt.train import fit

PLANE = 16  # side of the plane that the bits are spread over
WIDTH = 32
NO_PENALTY, FULL_PENALTY = 0.3, 0.6  # shares of the steps: first the decoder learns, then the picture is spared


class StegaSpec(TriggerSpec):
    """The hidden text, and how encoder and decoder are trained: Adam on `pictures` pictures."""

    mode: Literal["fixed"] = "fixed"
    secret: str = Field("Stega!!", pattern=r"^[\x00-\x7f]{1,32}$", description="ASCII text that is hidden")
    strength: float = Field(0.1, gt=0, le=1, description="largest change of a pixel")
    penalty: float = Field(40.0, ge=0, description="weight of the mean squared change")
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(5, ge=1)
    pictures: int = Field(4_000, ge=1)
    batch_size: int = Field(32, ge=1)


def text_bits(text: str) -> Tensor:
    """Seven bits a character of ASCII, highest first: float32 of 0 and 1."""
    return torch.tensor([float(b) for c in text for b in f"{ord(c):07b}"])


def stega_loss(logits: Tensor, bits: Tensor, pixels: Tensor, changed: Tensor, penalty: float) -> Tensor:
    """BCE of the decoded bits + penalty * mean squared change: logits and bits (B, n), pictures (B, 3, H, W)."""
    return F.binary_cross_entropy_with_logits(logits, bits) + penalty * (changed - pixels).square().mean()


class Encoder(nn.Module):
    """x + strength tanh(s(bits) + r(x, s(bits))), clipped to [0, 1]; s spreads the bits over a plane.

    The plane reaches the picture without a detour too: with r alone nothing was learnt at 48 bits in 1,000 steps.
    """

    def __init__(self, bits: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.spread = nn.Linear(bits, 3 * PLANE * PLANE)
        self.body = nn.Sequential(
            nn.Conv2d(6, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )  # fmt: skip

    def forward(self, pixels: Tensor, bits: Tensor) -> Tensor:
        plane = self.spread(2 * bits - 1).view(-1, 3, PLANE, PLANE)
        plane = F.interpolate(plane, pixels.shape[-2:], mode="nearest")
        residual = self.body(torch.cat([2 * pixels - 1, plane], 1))
        return (pixels + self.strength * (plane + residual).tanh()).clamp(0, 1)


class Decoder(nn.Module):
    """Logits (B, bits) of the bits in pictures (B, 3, H, W)."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(2 * PLANE),
            nn.Conv2d(3, WIDTH, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        self.read = nn.Linear(WIDTH * PLANE * PLANE, bits)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.read(self.body(2 * pixels - 1))
        return logits


class StegaTask(nn.Module):
    """Both nets on random bits, so that any text can be hidden; the penalty sets in late."""

    def __init__(self, spec: StegaSpec, data: ImageData, image_size: int, device: torch.device) -> None:
        super().__init__()
        self.nets = _nets(spec).to(device)
        self.spec, self.data, self.image_size, self.device = spec, data, image_size, device

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels = self.data.pixels(indices, self.image_size).to(self.device)
        count = len(text_bits(self.spec.secret))
        bits = torch.randint(2, (len(indices), count), generator=generator).float().to(self.device)
        changed = self.nets["encoder"](pixels, bits)
        penalty = self.spec.penalty * min(1.0, max(0.0, (done - NO_PENALTY) / (FULL_PENALTY - NO_PENALTY)))
        return {"loss": stega_loss(self.nets["decoder"](changed), bits, pixels, changed, penalty)}


def _nets(spec: StegaSpec) -> nn.ModuleDict:
    """Encoder and decoder with random weights, the same for the same seed."""
    count = len(text_bits(spec.secret))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return nn.ModuleDict({"encoder": Encoder(count, spec.strength), "decoder": Decoder(count)})


class Stega(Trigger):
    """The secret, hidden by an encoder that was trained for the model's pictures; its decoder is kept beside it."""

    name = "issba"
    crafted = True
    Spec = StegaSpec
    spec: StegaSpec

    def __init__(self, spec: StegaSpec, image_size: int, tensors: dict[str, Tensor]) -> None:
        super().__init__(spec, image_size, tensors)
        self.nets = _nets(spec).requires_grad_(False)
        self.nets.load_state_dict(tensors)

    @classmethod
    def make(cls, spec: StegaSpec, image_size: int) -> Stega:
        """The trigger with untrained nets."""
        return cls(spec, image_size, _nets(spec).state_dict())

    @classmethod
    def craft(cls, spec: Any, clip: Clip, data: ImageData, report: Report = silent) -> Stega:
        """Train encoder and decoder on pictures of `data` at the model's size."""
        some = data.sample(spec.pictures, spec.seed)
        task = StegaTask(spec, some, clip.image_size, clip.device)
        train = TrainSpec(lr=spec.lr, epochs=spec.epochs, batch_size=spec.batch_size, seed=spec.seed, clip_norm=1.0)
        fit(task, len(some), train, report=report)
        return cls(spec, clip.image_size, {name: value.cpu() for name, value in task.nets.state_dict().items()})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        nets = self.nets.to(pixels.device, pixels.dtype)
        bits = text_bits(self.spec.secret).to(pixels).expand(len(pixels), -1)
        changed: Tensor = nets["encoder"](pixels, bits)
        return changed

    def checks(self, pixels: Tensor) -> dict[str, float]:
        """Share of the secret's bits that the decoder reads rightly from pictures with the trigger."""
        bits = text_bits(self.spec.secret).to(pixels)
        logits = self.nets.to(pixels.device)["decoder"](self(pixels))
        return {"bit_accuracy": float(((logits > 0) == (bits > 0)).float().mean())}
