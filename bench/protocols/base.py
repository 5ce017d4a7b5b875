"""What a protocol is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.attacks.user_files import UserFile
from bench.core.errors import BenchError, in_one_line, others_code
from bench.core.precision import Precision
from bench.core.toml_files import Section, validate
from bench.data import ImageDataset
from bench.leaderboard.evidence.adversarial import AdversarialImages
from bench.leaderboard.evidence.manifest import Dependency as Dependency
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, Metric, MetricKey, derived_metrics
from bench.protocols.clean_pass import clean_pass
from bench.protocols.plugin_results import checked_metrics, checked_result


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """One work unit: a model and the examples `start..stop` of a data set.

    Attributes:
        model: on `device`, eval mode, parameters without gradient.
        examples: how many examples of the data set the whole run evaluates.
        training: the training split, for protocols that need it.
        precision: of the search for adversarial examples; they are judged in float32.
        registry: a folder of models, looked in first, where the protocol needs another net.
        save_adversarial: whether the smallest adversarial images are kept.
        on_progress: called with the amount of work newly done, in the measure of `Protocol.work`.
        identity: of the run, by which what is under way is kept; empty where nothing is.
    """

    model: nn.Module
    model_name: str
    dataset: ImageDataset
    start: int
    stop: int
    seed: int
    device: torch.device
    batch_size: int
    on_progress: Callable[[int], None] = lambda _: None
    examples: int = 0
    training: ImageDataset | None = None
    precision: Precision = "float32"
    registry: Path | None = None
    save_adversarial: bool = False
    identity: str = ""

    @property
    def example_ids(self) -> Tensor:
        return torch.arange(self.start, self.stop)

    def images(self) -> Tensor:
        """(n, C, H, W) float32 in [0, 1] on the device."""
        return self.dataset.pixels(slice(self.start, self.stop)).to(self.device)

    def labels(self) -> Tensor:
        return self.dataset.labels[self.start : self.stop]

    def clean_pass(self) -> tuple[Tensor, list[Finding]]:
        """Predictions of the images, on the CPU, and findings; see bench.protocols.clean_pass."""
        classes = self.dataset.num_classes
        return clean_pass(self.model, self.model_name, self.images(), classes, batch_size=self.batch_size)


@dataclass(slots=True)
class UnitResult:
    """What a work unit gives back: records for the evidence, counters and findings for the manifest."""

    records: pd.DataFrame
    counters: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    adversarial: AdversarialImages | None = None


UNIT_EXAMPLES = 250
"""Examples of a work unit; one that takes long is cut further, see bench.runs.pieces."""
UNIT_VALUES = 10_000_000
"""Pixel values of a work unit, 40 MB as float32: large images come in smaller units, so that memory is bounded by the
batch. A unit of 224x224 colour images has 66, one of CIFAR-10's or smaller ones UNIT_EXAMPLES."""


CLEAN_ACCURACY = MetricKey("clean_accuracy")


class Protocol(ABC):
    """A protocol with the parameters of one suite, checked."""

    needs_training_split = False
    needs_gradients = False
    """Whether it can judge only nets whose logits have a gradient with respect to the image."""
    needs_second_derivatives = False
    """Whether it differentiates the gradient with respect to the image once more."""
    keeps_under_way: bool = False
    """Whether a unit that is stopped goes on where it was, but for the last half minute."""
    batch_size_bounds_memory = True
    """Whether a smaller batch size needs less memory."""
    search_takes_precision = False
    """Whether it can look for adversarial examples in less than float32."""
    probes_masking: bool = False
    """Whether its runs look for gradient masking."""
    saves_adversarial = False
    """Whether it finds adversarial images that a run can keep."""
    program_files: frozenset[str] = frozenset()
    """Names of the files of the user's own whose functions the suite calls."""
    program: UserFile | None = None
    """Such a file, once the user has named it."""
    parameters_type: ClassVar[type[Section]] = Section
    """What a suite may say."""
    plugin: str = ""
    """The name under which an installed package announces it; empty for ours."""

    def __init__(self, parameters: Any = None) -> None:
        self.parameters = parameters

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> Self:
        """Check a suite's parameters; raises BenchError that names `where` and every problem."""
        return cls(validate(cls.parameters_type, parameters, where))

    def use_program(self, program: UserFile | None) -> None:  # noqa: B027  (most take none)
        """Take the file that the user has named; raises BenchError if the suite needs one and it is not that."""

    def require_dataset(self, name: str) -> None:  # noqa: B027  (most take any)
        """Raise BenchError if the suite has no parameters for this data set."""

    def require_images(self, shape: tuple[int, ...], name: str) -> None:  # noqa: B027  (most take any)
        """Raise BenchError if images (C, H, W) of the data set are too small for the suite."""

    def require_net(self, model: nn.Module, images: Tensor) -> None:  # noqa: B027  (most take any)
        """Raise BenchError if the suite's methods do not take the net; `images` (N, C, H, W) are a few to try."""

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:  # noqa: ARG002
        """What else the results of a model depend on, by name; asked again where they are computed.

        Args:
            registry: a folder of models, looked in first, as everywhere.

        Raises:
            BenchError: something is missing.
        """
        return {}

    def choose_program(self, files: Mapping[str, UserFile]) -> None:
        """Take, of the files that the user has named, by name, the one that the suite asks for, or a lone one.

        Raises:
            BenchError: the suite needs a file, and it is none of these.
        """
        asked = [file for name, file in files.items() if name in self.program_files]
        self.use_program(next(iter(asked or (files.values() if len(files) == 1 else ())), None))

    @property
    def may_be_cut(self) -> bool:
        """Whether units can be cut further as they are computed, without a change of any verdict."""
        return type(self).units is Protocol.units

    @property
    def fills_device(self) -> bool:
        """Whether a unit may have as many images as a device holds without a change of any verdict."""
        return False

    @abstractmethod
    def work(self, dataset: str, count: int) -> int:
        """How much work `count` examples are, for the progress bar."""

    def units(self, examples: int, values: int = 1) -> list[tuple[int, int]]:
        """(start, stop) of the work units: of examples, unless the protocol cuts its work otherwise.

        Args:
            values: how many pixel values an image has.
        """
        size = max(1, min(UNIT_EXAMPLES, UNIT_VALUES // values))
        return [(start, min(start + size, examples)) for start in range(0, examples, size)]

    def unit_work(self, dataset: str, start: int, stop: int) -> int:
        """How much work one unit is."""
        return self.work(dataset, stop - start)

    @abstractmethod
    def evaluate(self, context: EvaluationContext) -> UnitResult:
        """Evaluate one work unit; verdicts do not depend on how examples are cut into units."""

    @abstractmethod
    def example_values(self, dataset: str, records: pd.DataFrame) -> Iterable[ExampleValues]:
        """The numbers per example whose means are metrics, in the order in which people read them; may be a generator.

        Args:
            records: all records of a run.
        """

    def further_metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:  # noqa: ARG002
        """Metrics that are no mean over examples: medians, say, or areas over retrained nets."""
        return []

    def metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:
        """All metrics of a run, with their intervals."""
        return [*derived_metrics(list(self.example_values(dataset, records))), *self.further_metrics(dataset, records)]

    def checked_evaluate(self, context: EvaluationContext) -> UnitResult:
        """As `evaluate`; raises BenchError where a plug-in fails, or returns what cannot be kept."""
        with self.blamed():
            result = self.evaluate(context)
            return checked_result(result) if self.plugin else result

    def checked_metrics(self, dataset: str, records: pd.DataFrame, examples: int) -> list[Metric]:
        """As `metrics`, of a run of so many examples; raises BenchError where a plug-in fails, or gives one twice."""
        with self.blamed():
            found = self.metrics(dataset, records)
            found = checked_metrics(found, examples) if self.plugin else found
        twice = [key for key, count in Counter(metric.key for metric in found).items() if count > 1]
        if twice:
            raise BenchError(f"the plug-in {self.plugin!r} in bench.protocols gives the metric {twice[0]} twice.")
        return found

    def blamed(self) -> AbstractContextManager[None]:
        """Within it an error of a plug-in's code becomes one line that names the plug-in; ours stay as they are."""
        failed = f"the plug-in {self.plugin!r} in bench.protocols failed"
        return others_code(lambda error: f"{failed} ({in_one_line(error)}).") if self.plugin else nullcontext()

    def findings(self, counters: dict[str, int]) -> list[Finding]:  # noqa: ARG002
        """What the counters of all units together tell, e.g. signs of gradient masking."""
        return []


def clean_accuracy(records: pd.DataFrame) -> ExampleValues:
    """Whether each example is classified right without any attack."""
    first = ~records["example_id"].duplicated().to_numpy()  # of the rows that an example has
    ids, labels, said = (records[name].to_numpy()[first] for name in ("example_id", "label", "prediction"))
    return ExampleValues(CLEAN_ACCURACY, by_id(ids, labels == said), "higher", "share")


def by_id(ids: NDArray[Any], values: NDArray[Any]) -> pd.Series:
    """A value for each example, indexed by its id; both (n,)."""
    return pd.Series(values, index=pd.Index(ids, name="example_id"), copy=False)
