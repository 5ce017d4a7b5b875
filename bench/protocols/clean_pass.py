"""The clean pass: what the model says of the images before any attack, and whether its outputs can be judged at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.core.memory import is_out_of_memory
from bench.core.precision import float32_products
from bench.results.findings import Finding


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
    """Predictions (N,) on the CPU, and findings about the outputs.

    Raises:
        BenchError: pixels outside [0, 1]; logits of another shape than (N, num_classes); logits that are not numbers.
    """
    require_unit_pixels(images)
    predictions, probabilities = [], []
    with torch.no_grad(), float32_products():
        for begin in range(0, len(images), batch_size):
            batch = images[begin : begin + batch_size]
            before = batch.clone() if begin == 0 else None
            try:
                logits = model(batch)
            except (Exception, SystemExit) as error:  # of any kind: the net may be the user's own
                if is_out_of_memory(error) or isinstance(error, BenchError):
                    raise
                reason = " ".join(str(error).split())[:160] or type(error).__name__
                raise BenchError(
                    f"model {model_name} does not take images of shape {tuple(batch.shape[1:])} in a batch of "
                    f"{len(batch)}: {reason}."
                ) from error
            if before is not None and not torch.equal(before, batch):
                images[begin : begin + batch_size] = before
                raise BenchError(
                    f"model {model_name} changes its input in place, which spoils images and gradients; let it work on "
                    "a copy (images = images.clone())."
                )
            _require_logits(logits, model_name, len(batch), num_classes)
            predictions.append(logits.argmax(1))
            probabilities.append(_look_like_probabilities(logits / getattr(model, "factor", 1.0)))
    findings = []
    if bool(torch.cat(probabilities).all()):
        findings.append(
            Finding(
                "probabilities",
                "warning",
                f"all {len(images)} outputs lie in [0, 1] and sum to 1",
                "the net seems to return probabilities; return logits, or attacks lose their gradients to saturation",
            )
        )
    return torch.cat(predictions).cpu(), findings


def has_gradient(model: nn.Module, images: Tensor) -> bool:
    """Whether the logits depend on the images in a way that autograd sees.

    Raises:
        BenchError: the net fails where gradients are recorded or computed.
    """
    inputs = images[:1].detach().clone().requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = model(inputs)
            if not logits.requires_grad:
                return False
            return torch.autograd.grad(logits.sum(), inputs, allow_unused=True)[0] is not None
    except Exception as error:  # of any kind: the net may be the user's own
        if is_out_of_memory(error) or isinstance(error, BenchError):
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BenchError(
            f"the gradient of the model cannot be computed ({reason}); the suites blackbox and corruptions judge it "
            "without."
        ) from error


def _require_logits(logits: object, model_name: str, count: int, num_classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != count:
        raise BenchError(f"model {model_name} must return logits of shape (N, {num_classes}).")
    if logits.shape[1] != num_classes:
        raise BenchError(
            f"model {model_name} returns {logits.shape[1]} logits, but the data set has {num_classes} classes."
        )
    if not bool(torch.isfinite(logits).all()):
        raise BenchError(f"model {model_name} returns NaN or infinite logits on clean images; it cannot be evaluated.")


def _look_like_probabilities(logits: Tensor) -> Tensor:
    inside = ((logits >= 0) & (logits <= 1)).all(1)
    return inside & ((logits.sum(1) - 1.0).abs() < 1e-3)
