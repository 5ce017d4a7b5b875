from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.attributions.gradients import gradient_maps
from bench.training.methods import Batch, LocalGradientAlignment
from tests.training.methods.nets import batch, net


def test_scaling_the_last_layer_scales_the_l2_term_by_its_square_and_leaves_the_cosine_term() -> None:
    """LGA, section 1.5: the l2 criterion is not normalisation invariant, the cosine criterion is."""
    model, method = net(), LocalGradientAlignment(l2_weight=1.0, cosine_weight=1.0, eps=0.05)
    before = method.loss_terms(model, batch())
    with torch.no_grad():
        for parameter in (model.get_parameter("linear2.weight"), model.get_parameter("linear2.bias")):
            parameter.mul_(0.1)
    after = method.loss_terms(model, batch())
    assert float(after["l2"] / before["l2"]) == pytest.approx(0.01, rel=1e-3)
    assert float(after["cosine"]) == pytest.approx(float(before["cosine"]), rel=2e-2, abs=1e-6)


def test_alignment_is_measured_in_normalised_space() -> None:
    method = LocalGradientAlignment(l2_weight=1.0, cosine_weight=0.0)
    data = batch()
    doubled = Batch(data.images, data.labels, None, 2 * data.pixel_std, generator=torch.Generator().manual_seed(1))
    model = net()
    assert float(method.loss_terms(model, doubled)["l2"] / method.loss_terms(model, data)["l2"]) == pytest.approx(
        4.0, rel=1e-4
    )


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "gradient", "gradient_sign"])
def test_alignments_perturbation_is_of_the_kind_asked_for(kind: str) -> None:
    model, data = net(), batch()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    LocalGradientAlignment(eps=0.1, perturbation=kind).loss_terms(model, data)
    delta = ((seen[1] - seen[0]) / 0.1).flatten(1)
    norms = delta.norm(dim=1)
    if kind == "uniform":
        assert 0.9 < float(delta.abs().max()) <= 1.0 + 1e-5
    elif kind == "gaussian":
        assert float(delta.std()) == pytest.approx(1.0, abs=0.15) and float(delta.abs().max()) > 1.5
    else:
        assert torch.allclose(norms, torch.ones(6), atol=1e-4)
        own = gradient_maps(model, data.images, data.labels).flatten(1)
        own = own.sign() if kind == "gradient_sign" else own
        assert torch.allclose(F.cosine_similarity(delta, own), torch.ones(6), atol=1e-4)
