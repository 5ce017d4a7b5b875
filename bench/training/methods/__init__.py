"""One file a method: the loss of a paper, with its parameters declared and checked."""

from bench.training.methods.adversarial import Adversarial
from bench.training.methods.base import Batch, Method
from bench.training.methods.gradient_alignment import LocalGradientAlignment
from bench.training.methods.interpretation import InterpretationRegularization
from bench.training.methods.standard import Standard

__all__ = ["Adversarial", "Batch", "InterpretationRegularization", "LocalGradientAlignment", "Method", "Standard"]
