from __future__ import annotations

import torch
from torch import nn

from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.robustness.presets import AutoAttackFast, Union

PARAMETERS = {
    "stages": [{"steps": 8}, {"steps": 10, "targets": 2, "widen": 2.0}],
    "datasets": {"fashion_mnist": {"reference": {"linf": 0.1, "l2": 1.5, "l1": 15.0}}},
}


def test_the_union_is_what_no_norm_breaks(at_linf: nn.Module, fashion_test: ImageDataset) -> None:
    context = EvaluationContext(
        at_linf, "net", fashion_test, 0, stop=40, seed=0, device=torch.device("cpu"), batch_size=256
    )
    protocol = Union.from_parameters(PARAMETERS, "test")
    records = protocol.evaluate(context).records
    apart = AutoAttackFast.from_parameters(PARAMETERS, "test").evaluate(context).records
    survivors = ~apart.groupby("example_id")["broken"].any()
    # the cascade alone is at chance where an example lies at the radius: one of forty may differ
    assert int((records.set_index("example_id")["broken"] == survivors).sum()) <= 1
    metrics = {
        (metric.key.metric, metric.key.norm): metric.value for metric in protocol.metrics("fashion_mnist", records)
    }
    shares = sum(value for (name, _), value in metrics.items() if name == "first_broken")
    assert abs(metrics["clean_accuracy", ""] - shares - metrics["union_accuracy", "all"]) < 1e-9
    found = records["found_in_norm"] != ""
    assert (records.loc[found, "adversarial_prediction"] != records.loc[found, "label"]).all()
    assert found.any()
