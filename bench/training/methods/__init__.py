"""One file a method: the loss of a paper, with its parameters declared and checked."""

from bench.training.methods.adversarial import Adversarial as Adversarial
from bench.training.methods.base import Batch as Batch
from bench.training.methods.base import GradientMethod as GradientMethod
from bench.training.methods.base import Method as Method
from bench.training.methods.gradient_alignment import LocalGradientAlignment as LocalGradientAlignment
from bench.training.methods.input_regularizers import HessianRegularization as HessianRegularization
from bench.training.methods.input_regularizers import InputGradientRegularization as InputGradientRegularization
from bench.training.methods.input_regularizers import JacobianRegularization as JacobianRegularization
from bench.training.methods.interpretation import InterpretationRegularization as InterpretationRegularization
from bench.training.methods.standard import Standard as Standard
from bench.training.methods.trades import Trades as Trades
