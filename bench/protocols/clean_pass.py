"""The clean pass: what the model says of the images before any attack, and whether its outputs can be judged at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError, others_code, reason_of
from bench.core.precision import float32_products
from bench.core.torch_state import twice_differentiable
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric

_MOVED = 1e-3
"""How far logits may move with the images beside them, over the largest difference between two logits of an image.
Rounding stays 30 times below in deep nets of float32; batch statistics and dropout are 30 times above."""
_ROUNDING = 1e-5
"""How far the same batch's logits may move, over the largest logit: a GPU may add up in another order."""
_FLOAT32_STEP = 2.0**-23
_COARSE = 2.0**-10
"""A step of float32 is more than this share of the spread where attacks begin to feel it."""
_UNSTEADY = {
    "random_outputs": (
        "when they are computed again",
        "one draw was judged; make the net give one answer in eval mode (F.dropout needs training=self.training), or, "
        "if it is random on purpose, run the suite autoattack_rand, which averages",
    ),
    "batch_dependent": (
        "beside other images",
        "the batch size decides verdicts; let batch norms use running statistics (track_running_stats=True) in eval "
        "mode, and normalise every image by itself",
    ),
}
"""When logits change, and what to do."""


_TELLING = 10
"""With fewer images it cannot be said whether a net guesses."""


def require_unit_pixels(images: Tensor) -> None:
    """Raise BenchError unless every pixel is a number in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):  # also catches NaN
        raise BenchError(
            f"images must have pixels in [0, 1], these have {low:.4g} to {high:.4g}; normalise inside the net."
        )


def clean_pass(
    model: nn.Module, model_name: str, images: Tensor, num_classes: int, batch_size: int
) -> tuple[Tensor, list[Finding]]:
    """Predictions (N,) on the CPU, and findings about the outputs; costs two forward passes.

    Raises:
        BenchError: pixels outside [0, 1]; logits of another shape than (N, num_classes); logits that are not numbers.
    """
    require_unit_pixels(images)
    with torch.no_grad(), float32_products():
        parts = [checked_logits(model, model_name, batch, num_classes) for batch in torch.split(images, batch_size)]
        logits = torch.cat(parts)
        findings = _unsteady(model, images, logits, batch_size) + _coarse(logits)
    shares = logits / getattr(model, "factor", 1.0)
    if bool(((shares >= 0) & (shares <= 1)).all()) and bool(((shares.sum(1) - 1.0).abs() < 1e-3).all()):
        evidence = f"all {len(images)} outputs lie in [0, 1] and sum to 1"
        advice = "the net seems to return probabilities; return logits, or attacks lose their gradients to saturation"
        findings.append(Finding("probabilities", "warning", evidence, advice))
    return logits.argmax(1).cpu(), findings


def _unsteady(model: nn.Module, images: Tensor, logits: Tensor, batch_size: int) -> list[Finding]:
    """A warning where an image's logits are others when they are computed again, or beside other images."""
    count, cuts = len(images), _other_batches(len(images), batch_size)
    if count == 1:  # it gets company that is unlike it
        images, cuts = torch.cat([images, 1.0 - images]), [slice(0, 2)]
    spread = (logits.amax(1) - logits.amin(1)).amax()

    def computed(chosen: list[slice]) -> Tensor:
        return torch.cat([model(images[cut]) for cut in chosen])[:count]

    def moved(first: Tensor, second: Tensor, share: float) -> Tensor:
        allowed = share * spread + _ROUNDING * logits.abs().amax()
        return ~((second - first).abs().amax(1) <= allowed)  # what is NaN has moved

    again = computed(cuts)
    differ = moved(logits, again, _MOVED)
    # the same batches once more: a few where all is well
    repeated = computed(cuts if bool(differ.any()) else cuts[:2])
    random = moved(again[: len(repeated)], repeated, 0.0)
    if not bool(differ.any() or random.any()):
        return []
    number = max(int(differ.sum()), int(random.sum()))
    kind = "random_outputs" if bool(random.any()) else "batch_dependent"
    when, advice = _UNSTEADY[kind]
    far = 100 * float((again - logits).abs().amax() / spread)
    by = f", by up to {far:.2g} % of their spread" if math.isfinite(far) else ""
    return [Finding(kind, "warning", f"{number} of {count} images get other logits {when}{by}", advice)]


def _coarse(logits: Tensor) -> list[Finding]:
    """A warning where float32 hardly tells the logits apart, beside a constant that all of them share."""
    top = logits.topk(min(3, logits.shape[1]), dim=1).values
    step, spread = logits.abs().amax(1).median() * _FLOAT32_STEP, (top[:, 0] - top[:, -1]).median()
    if not float(step) > _COARSE * float(spread):
        return []
    evidence = (
        f"the largest logits of an image differ by {float(spread):.2g}, at a size where float32 has steps of "
        f"{float(step):.2g}"
    )
    advice = "verdicts are rounded with them; take the constant that all logits share out of the net"
    return [Finding("coarse_logits", "warning", evidence, advice)]


def _other_batches(count: int, batch_size: int) -> list[slice]:
    """Cuts of 1, 2, 4, ... up to `batch_size` images, so that hardly any image has the company it had."""
    cuts, begin = [], 0
    while begin < count:
        size = 2 if batch_size == 1 else min(begin + 1, batch_size)
        cuts.append(slice(begin, begin + size))
        begin += size
    return cuts


def guessing_findings(metrics: Sequence[Metric], num_classes: int) -> list[Finding]:
    """A warning where the clean accuracy cannot be told from guessing, as where images reach a net unnormalised."""
    return [
        Finding(
            "near_chance",
            "warning",
            f"clean accuracy {metric.value:.1%} on {metric.n_examples} images is no better than guessing one of "
            f"{num_classes} classes",
            "see that the net gets images as it was trained on (mean and std of pixels in [0, 1], channels, size), "
            "that its outputs are in the order of the classes, and that its weights were loaded",
        )
        for metric in metrics
        if metric.key.metric == "clean_accuracy" and metric.n_examples >= _TELLING and metric.ci_low <= 1 / num_classes
    ]


def checked_logits(model: nn.Module, model_name: str, images: Tensor, num_classes: int | None = None) -> Tensor:
    """Logits (N, K) of one batch, without a graph; any K from 2 on where `num_classes` is None.

    Raises:
        BenchError: the net fails, changes its input, or returns anything but finite logits of that shape.
    """
    before = images.clone()
    what = f"model {model_name} does not take images of shape {tuple(images.shape[1:])} in a batch of {len(images)}"
    with others_code(lambda error: f"{what}: {reason_of(error)}."), torch.no_grad():
        logits = model(images)
    if not torch.equal(before, images):
        images.copy_(before)
        raise BenchError(
            f"model {model_name} changes its input in place, which spoils images and gradients; let it work on "
            "a copy (images = images.clone())."
        )
    return _require_logits(logits, model_name, len(images), num_classes)


def has_gradient(model: nn.Module, images: Tensor) -> bool:
    """Whether the logits depend on the images in a way that autograd sees.

    Raises:
        BenchError: the net fails where gradients are recorded or computed.
    """
    return _gradient(model, images, twice=False) is not None


def require_second_derivatives(model: nn.Module, model_name: str, images: Tensor, suite: str) -> None:
    """Raise BenchError where the gradient cannot be differentiated once more; a net that is linear passes."""
    try:
        _gradient(model, images, twice=True)
    except BenchError as error:
        raise BenchError(f"suite {suite} cannot judge model {model_name}: {error}") from error


def _gradient(model: nn.Module, images: Tensor, *, twice: bool) -> Tensor | None:
    inputs = images.detach().clone().requires_grad_(True)
    what, others = ("second derivative", "suites that attack predictions") if twice else (
        "gradient", "suites blackbox and corruptions"
    )  # fmt: skip

    def line(error: BaseException) -> str:
        return f"the {what} of the model cannot be computed ({reason_of(error)}); the {others} judge it without."

    with others_code(line), torch.enable_grad(), twice_differentiable(twice):
        logits = model(inputs)
        if not logits.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=twice, allow_unused=True)
        if twice and gradient is not None and gradient.requires_grad:
            # not autograd.grad, which never comes to what fails beside the way to the images
            gradient.square().sum().backward()  # type: ignore[no-untyped-call]
        return gradient


def _require_logits(logits: object, model_name: str, count: int, num_classes: int | None) -> Tensor:
    shape = f"(N, {num_classes or 'K'})"
    if not isinstance(logits, Tensor):
        raise BenchError(
            f"model {model_name} returns a {type(logits).__name__}; wrap it in a net whose forward returns the logits "
            f"{shape} alone."
        )
    if logits.dim() != 2 or len(logits) != count or logits.shape[1] < 2:
        raise BenchError(f"model {model_name} must return logits of shape {shape}, it returns {tuple(logits.shape)}.")
    if num_classes is not None and logits.shape[1] != num_classes:
        raise BenchError(
            f"model {model_name} returns {logits.shape[1]} logits, but the data set has {num_classes} classes."
        )
    if not bool(torch.isfinite(logits).all()):
        raise BenchError(f"model {model_name} returns NaN or infinite logits on clean images; it cannot be evaluated.")
    return logits
