"""ISSBA: a faint change, different for each image, that hides a text (Li et al., ICCV 2021).

An encoder changes the image so that a decoder can read the bits of the text (Tancik, Mildenhall and Ng, CVPR 2020,
StegaStamp). Both are trained here, on images for the attacked model. Both use a key computed from a coarse version of
the image, so that the change of one image cannot be read on another image.
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
WIDTH = 32  # channels of the convolutions
COARSE = 4  # side of the coarse image that the key is computed from
BANDWIDTH = 0.5  # distance of coarse images at which keys differ: a change is about 0.03, two images are about 2 apart
NO_PENALTY, FULL_PENALTY = 0.3, 0.6  # shares of the steps: the decoder learns first, then the change is made faint


class StegaSpec(TriggerSpec):
    """Settings of ISSBA: the hidden text, and the training of encoder and decoder with AdamW."""

    mode: Literal["fixed"] = Field("fixed", description="one text for all images")
    secret: str = Field("Stega!!", pattern=r"^[\x00-\x7f]{1,32}$", description="hidden ASCII text")
    strength: float = Field(0.1, gt=0, le=1, description="maximum change of a pixel")
    penalty: float = Field(60.0, ge=0, description="weight of the mean squared change")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    epochs: int = Field(5, ge=1, description="passes over the images")
    images: int = Field(4_000, ge=1, description="training images")
    batch_size: int = Field(32, ge=1, description="images per training step")


def text_bits(text: str) -> Tensor:
    """Seven bits per ASCII character, highest first: float32 (7 len(text),) of 0 and 1."""
    return torch.tensor([float(b) for c in text for b in f"{ord(c):07b}"])


def stega_loss(logits: Tensor, bits: Tensor, pixels: Tensor, changed: Tensor, penalty: float) -> Tensor:
    """BCE(logits, bits) + penalty mean (x' - x)^2: logits and bits (B, n), images x and x' (B, 3, H, W) -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, bits) + penalty * (changed - pixels).square().mean()


class StegaNets(nn.Module):
    """Encoder and decoder; both multiply by a key computed from the coarse image.

    The keys of two images correlate by exp(-|c - c'|^2 / 2 BANDWIDTH^2), where c and c' are their coarse images (random
    Fourier features, Rahimi and Recht, NIPS 2007): almost 1 before and after a faint change, almost 0 for two images.
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
        """sqrt(2) cos(W c + b), (B, 1, PLANE, PLANE): c is the coarse image; W and b are random and not trained."""
        coarse = F.adaptive_avg_pool2d(pixels, COARSE).flatten(1)
        return 2**0.5 * F.linear(coarse, self.weight, self.phase).cos().view(-1, 1, PLANE, PLANE)

    def hide(self, pixels: Tensor, bits: Tensor) -> Tensor:
        """Images (B, 3, H, W) that hide bits (B, n).

        x + strength tanh(p + r(x, p)), clamped to [0, 1];  p = key(x) s(bits), s spreads the bits over a plane

        The plane is also added directly: with r alone nothing was learned at 48 bits in 1,000 steps.
        """
        plane = self.key(pixels) * self.spread(2 * bits - 1).view(-1, 3, PLANE, PLANE)
        plane = F.interpolate(plane, pixels.shape[-2:], mode="nearest")
        residual = self.encoder(torch.cat([2 * pixels - 1, plane], 1))
        return (pixels + self.strength * (plane + residual).tanh()).clamp(0, 1)

    def read(self, pixels: Tensor) -> Tensor:
        """Logits (B, bits) of the bits in images (B, 3, H, W).

        The decoder sees only fine details, in units of the strength: with whole images it learns much later.
        """
        small = F.adaptive_avg_pool2d(pixels, 2 * PLANE)
        fine = (small - F.avg_pool2d(small, 5, stride=1, padding=2, count_include_pad=False)) / self.strength
        logits: Tensor = self.decoder(self.key(pixels) * self.look(fine))
        return logits


class StegaTask(nn.Module):
    """The loss of both nets on random bits, so that any text can be hidden; the penalty starts late."""

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
    """Nets with random weights from the spec's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return StegaNets(len(text_bits(spec.secret)), spec.strength)


class Stega(Trigger):
    """A text hidden by an encoder that was trained on images for the model; the decoder is kept with it."""

    name = "issba"
    summary = "a hidden text, with a different faint change for each image"
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
        some = data.sample(spec.images, spec.seed).cached(clip.image_size)  # read once, used in every epoch
        task = StegaTask(spec, some, clip.image_size, clip.device)
        train = TrainSpec(lr=spec.lr, epochs=spec.epochs, batch_size=spec.batch_size, seed=spec.seed, clip_norm=1.0)
        fit(task, len(some), train, report=report)
        return cls(spec, clip.image_size, {name: value.cpu() for name, value in task.nets.state_dict().items()})

    def apply(self, pixels: Tensor, rows: Tensor) -> Tensor:
        nets, shown = self.nets.to(pixels.device), pixels.float()  # the nets stay as they are
        bits = text_bits(self.spec.secret).to(shown).expand(len(shown), -1)
        return nets.hide(shown, bits).to(pixels.dtype)

    def checks(self, pixels: Tensor) -> dict[str, float]:
        """Shares of bits decoded correctly in images (B, 3, S, S): from an image's own change, and from another's.

        For the second, the change of the image before is added to each image.
        """
        bits, changed = text_bits(self.spec.secret).to(pixels) > 0, self(pixels)
        others = (pixels + (changed - pixels).roll(1, 0)).clamp(0, 1)
        nets = self.nets.to(pixels.device)
        shares = [float(((nets.read(shown) > 0) == bits).float().mean()) for shown in (changed, others)]
        return dict(zip(("bit_accuracy", "bit_accuracy_of_another_s_change"), shares, strict=True))
