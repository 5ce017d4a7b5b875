"""RIBench from Python: what the command line does, for notebooks and scripts.

Load a registered model, or any that `bench run` takes, and judge it:

>>> import bench
>>> result = bench.evaluate("standard", "cross_norm_quick", examples=20, device="cpu")
>>> result.model, result.suite, len(result.records["example_id"].unique())
('fashion_mnist/standard', 'cross_norm_quick', 20)
>>> clean = result.value("clean_accuracy")
>>> clean >= result.value("robust_accuracy", norm="linf", eps=0.1)
True

A net in memory is judged in the same way; it takes images in [0, 1], or normalised ones with `mean=` and `std=`, and
returns logits. A copy of it is judged: the net and all settings and random states stay as they were:

>>> net = bench.load_model("at_linf")
>>> bench.evaluate(net, "cross_norm_quick", examples=5, model_id="mine").model
'fashion_mnist/mine'

Attack or explain single images; what an attack found has been verified:

>>> from bench.data import load_split
>>> test = load_split("fashion_mnist", "test")
>>> images, labels = test.pixels(slice(0, 8)), test.labels[:8]
>>> attacked = bench.attack(bench.load_model("standard"), images, labels, norm="linf", eps=0.1)
>>> attacked.images.shape == images.shape, bool(attacked.broken.all())
(True, True)
>>> maps = bench.attribute(net, images, labels, method="smoothgrad", samples=4)
>>> maps.shape
torch.Size([8, 1, 28, 28])

What a caller can mend is raised as `bench.BenchError`, in one line:

>>> try:
...     bench.load_model("hessain")
... except bench.BenchError as error:
...     print(error)
unknown fashion_mnist model 'hessain'; did you mean hessian?
"""

from __future__ import annotations

from bench.api.attacking import AttackResult, attack
from bench.api.attributing import attribute
from bench.api.evaluating import evaluate
from bench.api.loading import list_models, load_model, load_suite
from bench.api.result import Result
from bench.core.errors import BenchError

__all__ = [
    "AttackResult", "BenchError", "Result", "attack", "attribute", "evaluate", "list_models", "load_model",
    "load_suite",
]  # fmt: skip
