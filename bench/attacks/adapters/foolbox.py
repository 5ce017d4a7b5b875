"""The one place that knows Foolbox: HopSkipJump, an attack that sees decisions only, verified like our own.

Source: Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", S&P 2020.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor, nn

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.pgd import attacked_model
from bench.attacks.verification import AttackResults, verify
from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key
from bench.core.threat import Norm


def import_foolbox() -> ModuleType:
    """Import Foolbox; raises BenchError if it cannot be imported."""
    # it imports GitPython, which refuses to be imported where no git is installed
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        import foolbox
    except ImportError as error:
        raise BenchError(f"foolbox cannot be imported ({error}); install it with: pip install foolbox") from error
    module: ModuleType = foolbox
    return module


class _Decided(nn.Module):
    """The model with a further class, which wins where a logit is NaN or infinite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        finite = logits.isfinite().all(1, keepdim=True)
        nowhere = torch.where(finite, -torch.inf, 1.0)
        return torch.cat([torch.where(finite, logits, 0.0), nowhere], 1)


def run_hop_skip_jump(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    norm: Norm,
    eps: float,
    all_results: Sequence[AttackResults],
    *,
    steps: int,
    num_classes: int,
    batch_size: int,
    seed: int,
) -> Tensor:
    """Attack what the first results show standing in L-inf or L2; what verifies goes into all of the results.

    Args:
        images: (N, C, H, W) float32 in [0, 1] on the model's device.
        steps: rounds of gradient estimate and line search; eight are about 1,900 queries an image.

    Returns:
        (N,) bool on the CPU: the examples that were attacked.
    """
    foolbox = import_foolbox()
    given = ~all_results[0].broken(norm, eps)
    chosen = given.nonzero().squeeze(1)
    if not len(chosen):
        return given
    clean, truth = images[chosen.to(images.device)].contiguous(), labels[chosen].to(images.device)
    devices = [clean.device] if clean.device.type == "cuda" else []
    with attacked_model(model) as frozen, torch.random.fork_rng(devices=devices), torch.no_grad():
        prepared = PreparedModel(frozen, num_classes, batch_size).eval()
        torch.manual_seed(stream_key(seed, "hop_skip_jump", norm, eps, int(example_ids[0])) & ((1 << 63) - 1))
        attack = foolbox.attacks.HopSkipJumpAttack(steps=steps, constraint=norm)
        target = foolbox.PyTorchModel(_Decided(prepared).eval(), bounds=(0, 1), device=clean.device)
        try:
            _, (found,), (claimed,) = attack(target, clean, foolbox.criteria.Misclassification(truth), epsilons=[eps])
        except (ValueError, AssertionError):
            # it starts from noise that fools the model for every image, alone and beside the others; where there is
            # none it has nothing to offer
            return given
        radius = clean.new_full((len(clean),), eps)
        verified, distances, predictions = verify(prepared, found, clean, truth, radius, norm)
    verified &= claimed
    all_results[0].claims += int(claimed.sum())
    all_results[0].rejected += int((claimed & ~verified).sum())
    for results in all_results:
        results.record(
            chosen[verified.cpu()],
            norm,
            {other: value[verified] for other, value in distances.items()},
            predictions[verified],
        )
    return given
