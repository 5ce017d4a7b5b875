"""The named recipes: methods with their parameters per data set and net, and schedules, each with its source.

IR code: github.com/a1noack/interp_regularization at 9ae51df, its train scripts. LGA code:
github.com/joshua840/RobustAGA at 2c9138d, its scripts. Weights that depend on the batch size there are made independent
of it. A value without a source is a starting point of ours.

The net of a paper (`architecture = "lenet"`) brings that paper's optimiser, length and normalisation; `small_cnn`,
ours, has a schedule of ours that suits two CPU cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.training import methods
from bench.training.recipe import RecipeTemplate

Values = Mapping[str, Any]

_CIFAR10 = {"architecture": "small_cnn", "augmentation": "crop_flip"}
_BFLOAT16 = {"precision": "bfloat16"}

_IR_SGD = {"optimizer": "sgd", "warmup_share": 0.0, "gradient_clip": 0.0, "precision": "float32"}
_IR_NETS: Mapping[str, Values] = {
    "mnist/simple_cnn": {
        "epochs": 100, "batch_size": 50, "learning_rate": 0.01, "weight_decay": 1e-5, **_IR_SGD,
        "architecture_parameters": {"mean": [0.0], "std": [1.0]},
    },
    "cifar10/wide_resnet": {
        "epochs": 200, "batch_size": 128, "learning_rate": 0.1, "weight_decay": 5e-4, **_IR_SGD,
        "architecture_parameters": {"depth": 28, "widen": 10, "dropout": 0.3, "mean": [0.0] * 3, "std": [1.0] * 3},
    },
}  # fmt: skip
"""IR code, train_mnist_*.sh and train_cifar_*.sh: SGD with Nesterov momentum (MNIST's too: `-nesterov=False` parses as
True), cosine to 0, no clipping, pixels in [0, 1] not normalised. The rate falls each step, there each epoch."""
_IR_BATCH_NORM: Mapping[str, Values] = {"cifar10/wide_resnet": {"batch_norm": "batch"}}
"""IR code, train_models.py: the net is in train mode, and the Jacobian, double back-propagation and interpretation
regularisation are all differentiated from the pass of the cross-entropy. SimpleCNN has no batch norm."""
_IR_FASHION_MNIST = {"cosine_weight": 1.0, "magnitude_weight": 0.3}
"""Ours, chosen on the validation split: after three epochs 86.08 %, with MNIST's weights 79.04 % (tuning.csv)."""
_IR_MNIST = {"cosine_weight": 3.0, "magnitude_weight": 1.06, "epochs": 6}
"""IR code, train_mnist_ir.sh: 3 and 0.15 on one norm over a batch of 50, so 0.15 * sqrt(50) here."""
_IR_CIFAR10 = {"cosine_weight": 0.75, "magnitude_weight": 0.0566, "epochs": 10, **_CIFAR10}
"""IR code, train_cifar_ir.sh: 0.75 and 0.005 on one norm over a batch of 128, so 0.005 * sqrt(128) here."""

_SOFTPLUS = {"activation": "softplus", "softplus_beta": 3.0, "gradient_clip": 0.5, "weight_decay": 1e-2}
"""LGA code: softplus with beta 3 in every net, the plain one included, and clipping at 0.5; the weight decay is that of
ResNet18's AdamW."""
_LGA_CIFAR10 = {"architecture": "lenet", "augmentation": "crop_flip"}
_LGA_IMAGENET100 = {"architecture": "resnet18"}
_LGA_STEPS = {"learning_rate": 1e-3, "warmup_share": 0.0, "schedule": "multistep", "gamma": 0.1}
_LGA_100_150 = {**_LGA_STEPS, "milestones": [100, 150], "architecture_parameters": {"std": [0.2023, 0.1994, 0.2010]}}
_LGA_NETS: Mapping[str, Values] = {
    "cifar10/lenet": {"epochs": 300, "optimizer": "adam", "weight_decay": 4e-5, **_LGA_100_150},
    "cifar10/resnet18": {"epochs": 200, "optimizer": "adamw", "weight_decay": 1e-2, **_LGA_100_150},
    "imagenet100/resnet18": {
        "epochs": 90, "optimizer": "adamw", "weight_decay": 1e-2, "milestones": [40, 60, 80], **_LGA_STEPS,
    },
}  # fmt: skip
"""LGA code, scripts: LeNet has Adam with coupled weight decay, ResNet18 AdamW; both MultiStep without warm-up, batches
of 128; the gradient penalties are in units of pixels over these standard deviations. Not as there: no random resized
crops and flips on ImageNet-100, whose images are resized and cropped at the centre."""
_LGA_BATCH_NORM = {"batch_norm": "batch"}
"""LGA code, default_step of its classifiers: ResNet18 is in train mode for the clean and the noisy pass of LGA, and
for the one pass of the Hessian term. LeNet has no batch norm."""
_LGA_WEIGHTS: Mapping[str, Values] = {
    "cifar10/lenet": {"eps": 4 / 255, "l2_weight": 0.01, "cosine_weight": 1.0},
    "cifar10/resnet18": {"eps": 4 / 255, "l2_weight": 0.01, "cosine_weight": 0.1, **_LGA_BATCH_NORM},
    "imagenet100/resnet18": {"eps": 4 / 255, "l2_weight": 1.0, "cosine_weight": 0.01, **_LGA_BATCH_NORM},
}
"""LGA code, scripts: lamb_l2 and lamb_cos."""
_HESSIAN_WEIGHTS: Mapping[str, Values] = {
    "cifar10/lenet": {"weight": 1e-3},
    "cifar10/resnet18": {"weight": 1e-4, **_LGA_BATCH_NORM},
    "imagenet100/resnet18": {"weight": 1e-3, "batch_size": 64, **_LGA_BATCH_NORM},
}
"""LGA code, scripts: lamb_hess."""
_LGA_FASHION_MNIST = {"eps": 16 / 255, "cosine_weight": 10.0, "l2_weight": 1.0, "detach_reference": False}
"""Ours, chosen on the validation split (tuning.csv): with the paper's CIFAR-10 weights small_cnn is just as stable as
softplus alone makes it. With a detached reference the step is no descent on the criterion (at 4/255 its cosine with the
gradient of the squared distance is 0.28, with that of the cosine distance 0.08), and trials of two epochs with cosine
weights of 3 and 10 or an L2 weight of 0.1 alone came out no stabler than softplus, or hardly so."""


def _joined(*tables: Mapping[str, Values]) -> dict[str, Values]:
    """Tables by data set or net in one; of two values for the same key and name the later one counts."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: {name: value for table in tables for name, value in table.get(key, {}).items()} for key in keys}


def _with(table: Mapping[str, Values], own: Values) -> dict[str, Values]:
    return {key: {**values, **own} for key, values in table.items()}


_QUICK = {"learning_rate": 1e-3, **_BFLOAT16, **_CIFAR10}
_LINF: Mapping[str, Values] = {
    "mnist": {"eps": 0.3, "steps": 10, "eps_warmup_share": 0.5, "epochs": 8, **_BFLOAT16},
    "cifar10": {"eps": 8 / 255, "eps_warmup_share": 0.5, "epochs": 8, **_QUICK},
}
"""With the full radius and rate from the first step, nets on MNIST at L-inf 0.3 and on CIFAR-10 at 8/255 stayed at the
constant prediction (cross-entropy 2.30) for 8 and 3 epochs."""
_L2: Mapping[str, Values] = {
    "mnist": {"epochs": 8, **_BFLOAT16},
    "cifar10": {"eps": 0.5, "eps_warmup_share": 0.3, "epochs": 10, **_QUICK},
}
_TRADES: Mapping[str, Values] = {
    "fashion_mnist": _BFLOAT16, "mnist": {"eps": 0.3, "steps": 10}, "cifar10": {"eps": 8 / 255, **_CIFAR10},
}  # fmt: skip
_PENALTIES = _joined({"mnist": {"epochs": 6}, "cifar10": {"epochs": 10, **_CIFAR10}}, _IR_NETS, _IR_BATCH_NORM)


_IR = "interpretation regularisation towards"


def _interpretation(name: str, summary: str, fashion_mnist: Values | None = None, **own: Any) -> RecipeTemplate:
    weights: dict[str, Values] = {"fashion_mnist": _IR_FASHION_MNIST, "mnist": _IR_MNIST, "cifar10": _IR_CIFAR10}
    changed = {"fashion_mnist": fashion_mnist or {}}
    return RecipeTemplate(
        name, summary, methods.InterpretationRegularization, own,
        schedule={"epochs": 12, "gradient_clip": 5.0},
        datasets=_joined(_with(weights, own), changed, _IR_NETS, _IR_BATCH_NORM),
    )  # fmt: skip


def _smooth(name: str, summary: str, method: type[Any], table: Mapping[str, Values], **own: Any) -> RecipeTemplate:
    """A recipe for softplus nets: the same optimiser, weight decay and clipping for all of them."""
    tables = _joined({"cifar10": _LGA_CIFAR10, "imagenet100": _LGA_IMAGENET100}, _LGA_NETS, _with(table, own))
    return RecipeTemplate(name, summary, method, own, schedule=_SOFTPLUS, datasets=tables)


def _alignment(name: str, terms: str, **own: Any) -> RecipeTemplate:
    summary = f"local gradient alignment{terms}, softplus net"
    weights: dict[str, Values] = {"fashion_mnist": _LGA_FASHION_MNIST, **_LGA_WEIGHTS}
    return _smooth(name, summary, methods.LocalGradientAlignment, weights, **own)


_ALL = (
    RecipeTemplate(
        "standard", "cross-entropy on clean images", methods.Standard,
        datasets=_joined({"mnist": {"epochs": 6}, "cifar10": {"epochs": 12, **_BFLOAT16, **_CIFAR10}}, _IR_NETS),
    ),
    RecipeTemplate(
        "at_linf", "PGD adversarial training in L-inf", methods.Adversarial, {"norm": "linf", "eps": 0.1},
        schedule={"epochs": 20, "learning_rate": 2e-3}, datasets=_joined(_LINF, _IR_NETS),
    ),
    RecipeTemplate(
        "at_l2", "PGD adversarial training in L2", methods.Adversarial, {"norm": "l2", "eps": 1.5},
        schedule={"epochs": 15, "learning_rate": 2e-3}, datasets=_joined(_L2, _IR_NETS),
    ),
    RecipeTemplate(
        "trades", "TRADES in L-inf: clean cross-entropy and a smooth decision around each image", methods.Trades,
        {"norm": "linf", "eps": 0.1}, schedule={"epochs": 12, "learning_rate": 2e-3}, datasets=_TRADES,
    ),
    RecipeTemplate(
        "jacobian", "Jacobian regularisation by random projections", methods.JacobianRegularization,
        {"weight": 0.01}, schedule={"epochs": 12}, datasets=_PENALTIES,
    ),
    RecipeTemplate(
        "input_gradient", "input gradient regularisation (double back-propagation)",
        methods.InputGradientRegularization, {"weight": 0.3}, schedule={"epochs": 12}, datasets=_PENALTIES,
    ),
    _interpretation("ir_gradient", f"{_IR} the standard model's gradients", target="gradient"),
    _interpretation("ir_smoothgrad", f"{_IR} the standard model's SmoothGrad maps", target="smoothgrad"),
    _interpretation("ir_gradient_at", f"{_IR} gradients of at_l2", target="gradient", source_model="at_l2"),
    _interpretation("ir_smoothgrad_at", f"{_IR} SmoothGrad maps of at_l2", target="smoothgrad", source_model="at_l2"),
    # at this weight the gradients have the norm of ir_smoothgrad's: trials of both in tuning.csv, held-out images
    _interpretation(
        "ir_magnitude", "small input gradients alone, without a direction (control)",
        cosine_weight=0.0, fashion_mnist={"magnitude_weight": 0.19},
    ),
    _interpretation(
        "ir_permuted", f"{_IR} SmoothGrad maps, all pixels shuffled (control)",
        target="smoothgrad", permuted_share=1.0,
    ),
    _interpretation(
        "ir_untrained", f"{_IR} gradients of an untrained net (control)",
        target="gradient", source_model="untrained",
    ),
    _smooth("softplus", "cross-entropy on clean images, softplus net: lga without its terms", methods.Standard, {}),
    _smooth(
        "hessian", "Hessian regularisation of the true class's logit, softplus net", methods.HessianRegularization,
        _HESSIAN_WEIGHTS,
    ),
    _alignment("lga", ": L2 and cosine terms"),
    _alignment("lga_l2", ", L2 term alone", cosine_weight=0.0),
    _alignment("lga_cosine", ", cosine term alone", l2_weight=0.0),
)  # fmt: skip
TEMPLATES: dict[str, RecipeTemplate] = {template.name: template for template in _ALL}
