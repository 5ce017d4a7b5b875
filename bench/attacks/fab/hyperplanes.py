"""The nearest point of a hyperplane inside the box [0, 1], for one hyperplane per example, in L-inf, L2 and L1.

The problem is that of Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
ICML 2020, section 2. There it is solved by sorting; here L-inf and L2 follow Newton's method on the one multiplier,
which from below needs few steps on a concave piecewise-linear function and no order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.core.threat import Norm

_NEWTON_STEPS = 16
_TINY = 1e-30


def towards_hyperplane(points: Tensor, normal: Tensor, excess: Tensor, norm: Norm) -> Tensor:
    """The smallest move that takes points onto their hyperplanes; as far as the box allows where it stops before.

    Args:
        points: (P, N, D) in [0, 1]: P sets of points, the n-th point of each for the n-th hyperplane.
        normal: (N, D).
        excess: (P, N) normal . point - offset: how far the point is above its hyperplane, in units of the normal.

    Returns:
        (P, N, D) moves: normal . move = -excess where that can be reached, and point + move in [0, 1].
    """
    direction = normal * -excess.sign()[..., None]
    # how far each pixel can go: to 1 where the direction rises, to 0 where it falls, nowhere where it is level
    signs = direction.sign()
    room = (signs * (0.5 - points)).add_(0.5).mul_(signs.abs())
    gain, need = normal.abs(), excess.abs()
    if norm == "l1":
        size = _greedily(gain, room, need)
    else:
        pace = torch.ones_like(gain) if norm == "linf" else gain
        size = torch.minimum(_multiplier(gain, pace, room, need)[..., None] * pace, room)
    return size.mul_(signs)


def _multiplier(gain: Tensor, pace: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """(P, N) the least m with sum(gain * min(m * pace, room)) = need; huge where there is none."""
    rate = gain * pace
    reach = gain * room
    # the multiplier at which a pixel meets the box
    met = room / pace.clamp_min(_TINY)
    whole = reach.sum(-1)
    multiplier = need / rate.sum(-1).clamp_min(_TINY)
    moving = torch.empty_like(room)
    for _ in range(_NEWTON_STEPS):
        # straight into numbers: element-wise work on booleans is some ten times slower on a CPU
        torch.gt(met, multiplier[..., None], out=moving)
        slope = torch.einsum("pnd,nd->pn", moving, rate)
        done = whole - torch.einsum("pnd,pnd->pn", moving, reach)
        further = torch.maximum(multiplier, (need - done) / slope.clamp_min(_TINY))
        settled = further.device.type == "cpu" and bool((further <= multiplier * (1.0 + 1e-7)).all())
        multiplier = further
        if settled:
            break
    return multiplier


def _greedily(gain: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """(P, N, D) pixels with the largest gain go all their way, until the need is met inside one of them."""
    order = gain.argsort(-1, descending=True).expand_as(room)
    reach = (gain * room).gather(-1, order)
    before = reach.cumsum(-1).sub_(reach)
    rest = ((need[..., None] - before) / gain.expand_as(room).gather(-1, order).clamp_min(_TINY)).clamp_min_(0.0)
    return torch.zeros_like(room).scatter_(-1, order, torch.minimum(rest, room.gather(-1, order)))
