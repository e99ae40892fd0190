"""ISSBA: a faint change, another for each image, that hides a text (Li et al., ICCV 2021).

An encoder changes the image so that a decoder can read the bits again (Tancik, Mildenhall and Ng, CVPR 2020,
StegaStamp). Both are trained here, on images of the model that is attacked. Both work under a key that follows
from the image's coarse look, so that the change of one image says nothing on another.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.attacks.trigger import Trigger, TriggerSpec
from rvpt.data.dataset import Dataset
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.spec import TrainSpec
from rvpt.training.loop import fit

PLANE = 16  # side of the plane that the bits are spread over
WIDTH = 32
COARSE = 4  # side of the coarse image that the key follows from
BANDWIDTH = 0.5  # distance of coarse looks at which keys part: a change moves one by 0.03, two images lie 2 apart
NO_PENALTY, FULL_PENALTY = 0.3, 0.6  # shares of the steps: first the decoder learns, then the image is spared


class StegaSpec(TriggerSpec):
    """The hidden text, and how encoder and decoder are trained: Adam on `images` images."""

    mode: Literal["fixed"] = "fixed"
    secret: str = Field("Stega!!", pattern=r"^[\x00-\x7f]{1,32}$", description="ASCII text that is hidden")
    strength: float = Field(0.1, gt=0, le=1, description="largest change of a pixel")
    penalty: float = Field(60.0, ge=0, description="weight of the mean squared change")
    lr: float = Field(1e-3, gt=0)
    epochs: int = Field(5, ge=1)
    images: int = Field(4_000, ge=1)
    batch_size: int = Field(32, ge=1)


def text_bits(text: str) -> Tensor:
    """Seven bits a character of ASCII, highest first: float32 of 0 and 1."""
    return torch.tensor([float(b) for c in text for b in f"{ord(c):07b}"])


def stega_loss(logits: Tensor, bits: Tensor, pixels: Tensor, changed: Tensor, penalty: float) -> Tensor:
    """BCE of the decoded bits + penalty * mean squared change: logits and bits (B, n), images (B, 3, H, W)."""
    return F.binary_cross_entropy_with_logits(logits, bits) + penalty * (changed - pixels).square().mean()


class StegaNets(nn.Module):
    """Encoder and decoder: both multiply by a key that follows from the image's coarse look.

    Two images' keys correlate by exp(-|c - c'|^2 / 2 BANDWIDTH^2), where c and c' are their coarse looks (random
    Fourier features, Rahimi and Recht, NIPS 2007): fully before and after a faint change, hardly for two images.
    """

    weight: Tensor
    phase: Tensor

    def __init__(self, bits: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.register_buffer("weight", torch.randn(PLANE * PLANE, 3 * COARSE * COARSE) / BANDWIDTH)
        self.register_buffer("phase", 2 * torch.pi * torch.rand(PLANE * PLANE))
        self.spread = nn.Linear(bits, 3 * PLANE * PLANE)
        self.encoder = nn.Sequential(
            nn.Conv2d(6, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )  # fmt: skip
        self.look = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        self.decoder = nn.Sequential(
            nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(), nn.Flatten(), nn.Linear(WIDTH * PLANE * PLANE, bits),
        )  # fmt: skip

    def key(self, pixels: Tensor) -> Tensor:
        """sqrt(2) cos(W c + b), (B, 1, PLANE, PLANE): c is the coarse look, W and b are random and stay."""
        coarse = F.adaptive_avg_pool2d(pixels, COARSE).flatten(1)
        return 2**0.5 * F.linear(coarse, self.weight, self.phase).cos().view(-1, 1, PLANE, PLANE)

    def hide(self, pixels: Tensor, bits: Tensor) -> Tensor:
        """x + strength tanh(p + r(x, p)), clipped to [0, 1]: p = key(x) s(bits), s spreads the bits over a plane.

        The plane reaches the image without a detour too: with r alone nothing was learned at 48 bits in 1,000 steps.
        """
        plane = self.key(pixels) * self.spread(2 * bits - 1).view(-1, 3, PLANE, PLANE)
        plane = F.interpolate(plane, pixels.shape[-2:], mode="nearest")
        residual = self.encoder(torch.cat([2 * pixels - 1, plane], 1))
        return (pixels + self.strength * (plane + residual).tanh()).clamp(0, 1)

    def read(self, pixels: Tensor) -> Tensor:
        """Logits (B, bits) of the bits in images (B, 3, H, W).

        Only what is fine is looked at, in units of the strength: of whole images bits are learned much later.
        """
        small = F.adaptive_avg_pool2d(pixels, 2 * PLANE)
        fine = (small - F.avg_pool2d(small, 5, stride=1, padding=2, count_include_pad=False)) / self.strength
        logits: Tensor = self.decoder(self.key(pixels) * self.look(fine))
        return logits


class StegaTask(nn.Module):
    """Both nets on random bits, so that any text can be hidden; the penalty sets in late."""

    def __init__(self, spec: StegaSpec, data: Dataset, image_size: int, device: torch.device) -> None:
        super().__init__()
        self.nets = _nets(spec).to(device)
        self.spec, self.data, self.image_size, self.device = spec, data, image_size, device

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels = self.data.pixels(indices, self.image_size).to(self.device)
        count = len(text_bits(self.spec.secret))
        bits = torch.randint(2, (len(indices), count), generator=generator).float().to(self.device)
        changed = self.nets.hide(pixels, bits)
        penalty = self.spec.penalty * min(1.0, max(0.0, (done - NO_PENALTY) / (FULL_PENALTY - NO_PENALTY)))
        return {"loss": stega_loss(self.nets.read(changed), bits, pixels, changed, penalty)}


def _nets(spec: StegaSpec) -> StegaNets:
    """Nets with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return StegaNets(len(text_bits(spec.secret)), spec.strength)


class Stega(Trigger):
    """The secret, hidden by an encoder that was trained for the model's images; its decoder is kept beside it."""

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
    def craft(cls, spec: Any, clip: Clip, data: Dataset, report: Report = silent) -> Stega:
        """Train encoder and decoder on images of `data` at the model's size."""
        some = data.sample(spec.images, spec.seed).cached(clip.image_size)  # each is shown in every epoch
        task = StegaTask(spec, some, clip.image_size, clip.device)
        train = TrainSpec(lr=spec.lr, epochs=spec.epochs, batch_size=spec.batch_size, seed=spec.seed, clip_norm=1.0)
        fit(task, len(some), train, report=report)
        return cls(spec, clip.image_size, {name: value.cpu() for name, value in task.nets.state_dict().items()})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        nets = self.nets.to(pixels.device, pixels.dtype)
        bits = text_bits(self.spec.secret).to(pixels).expand(len(pixels), -1)
        return nets.hide(pixels, bits)

    def checks(self, pixels: Tensor) -> dict[str, float]:
        """Shares of the secret's bits that are read rightly: with an image's own change, and with another one's."""
        bits, changed = text_bits(self.spec.secret).to(pixels) > 0, self(pixels)
        others = (pixels + (changed - pixels).roll(1, 0)).clamp(0, 1)
        nets = self.nets.to(pixels.device)
        shares = [float(((nets.read(shown) > 0) == bits).float().mean()) for shown in (changed, others)]
        return dict(zip(("bit_accuracy", "bit_accuracy_of_another_s_change"), shares, strict=True))
