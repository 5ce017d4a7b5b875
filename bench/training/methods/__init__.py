"""One file a method: the loss of a paper, with its parameters declared and checked."""

from bench.training.methods.adversarial import Adversarial
from bench.training.methods.base import Batch, GradientMethod, Method
from bench.training.methods.gradient_alignment import LocalGradientAlignment
from bench.training.methods.input_regularizers import (
    HessianRegularization,
    InputGradientRegularization,
    JacobianRegularization,
)
from bench.training.methods.interpretation import InterpretationRegularization
from bench.training.methods.standard import Standard
from bench.training.methods.trades import Trades

__all__ = [
    "Adversarial",
    "Batch",
    "GradientMethod",
    "HessianRegularization",
    "InputGradientRegularization",
    "InterpretationRegularization",
    "JacobianRegularization",
    "LocalGradientAlignment",
    "Method",
    "Standard",
    "Trades",
]
