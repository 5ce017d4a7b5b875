"""The model card: everything needed to trust, load and repeat one trained model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from bench.core.names import SAFE_NAME
from bench.core.toml_files import Section, read_toml, validate, write_toml
from bench.data.specs import DATASETS

ProgramKind = Literal["python", "torchscript", "export", "onnx"]
SHA256 = Field(pattern=r"^[0-9a-f]{64}$")
NAME = Field(pattern=rf"^{SAFE_NAME}$")
WORDS = Field(min_length=1, max_length=200, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")
"""One line without characters that a terminal obeys."""


class Weights(Section):
    """The weights file beside the card, or wherever `url` says."""

    sha256: str = SHA256
    parameters: int = Field(gt=0)
    url: str | None = Field(default=None, max_length=2000, pattern=r"^https://[!-?A-~]+$")
    """Where the file is fetched from when it is not here and the user allows it."""


class Training(Section):
    """How `bench train` made the weights; absent for a model trained elsewhere."""

    recipe: str
    parameters: dict[str, Any]
    schedule: dict[str, Any]
    seed: int
    data_sha256: str = SHA256
    training_examples: int = Field(gt=0)
    validation_examples: int = Field(ge=0)
    source_model: str | None = None
    source_sha256: str | None = None
    departs: str | None = None
    """What differs from the recipe's own values for the data set, as `bench train` writes it; absent: nothing."""
    bench_version: str
    torch_version: str
    device: str
    threads: int = Field(gt=0)
    minutes: float = Field(ge=0)
    finished_at: str


class Accuracy(Section):
    """Clean accuracies of the published weights, as fractions."""

    validation: float | None = Field(default=None, ge=0, le=1)
    test: float | None = Field(default=None, ge=0, le=1)
    test_examples: int | None = Field(default=None, gt=0)
    """How many images, from the first on, `test` was measured on; all of the split where it is absent."""


class Gradients(Section):
    """What the input gradients are like, on held-out examples; see bench.training.measures."""

    # a net that has come apart has none
    model_config = ConfigDict(allow_inf_nan=True)

    examples: int = Field(gt=0)
    stability: dict[str, float]
    """Radius of uniform noise -> mean cosine between the clean and the noisy image's gradient."""
    target_cosine: float | None = None
    """Mean cosine to the target maps of interpretation regularisation."""
    norm: float | None = None
    """Root mean square of the L2 norms of the gradients of the true class's logit, pixels in [0, 1]."""


class ProgramFacts(Section):
    """The program of the user's that makes the net, for architecture `program`; it runs only when the user names it."""

    kind: ProgramKind
    file: str = NAME
    factory: str | None = None
    sha256: str = SHA256


class ModelCard(Section):
    """card.toml, validated; unknown keys are refused."""

    schema_version: Literal[1]
    id: str = NAME
    method: str = WORDS
    dataset: str = NAME
    description: str = ""
    num_classes: int | None = Field(default=None, gt=1, lt=1 << 31)
    """Needed only where the data set is not one that this package knows."""
    architecture: str
    architecture_parameters: dict[str, Any] = Field(default_factory=dict)
    weights: Weights
    accuracy: Accuracy = Field(default_factory=Accuracy)
    gradients: Gradients | None = None
    training: Training | None = None
    program: ProgramFacts | None = None

    @property
    def name(self) -> str:
        """The full name, e.g. `fashion_mnist/at_linf`."""
        return f"{self.dataset}/{self.id}"

    @property
    def expected_classes(self) -> int:
        """How many logits the net must return."""
        spec = DATASETS.get(self.dataset)
        return spec.num_classes if spec is not None else int(self.num_classes or 0)

    @model_validator(mode="after")
    def _is_whole(self) -> ModelCard:
        if self.expected_classes < 2:
            raise ValueError(f"num_classes is needed, since {self.dataset} is not a known data set")
        if (self.architecture == "program") != (self.program is not None):
            raise ValueError("architecture 'program' and a [program] section go together")
        return self


def read_card(folder: Path) -> ModelCard:
    """Read and validate `folder/card.toml`; raises BenchError."""
    path = folder / "card.toml"
    try:
        state = path.stat()
    except OSError:
        state = None
    # a run asks for the whole registry more than once
    return _parsed(path, state and (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=1024)
def _parsed(path: Path, state: tuple[int, int, int] | None) -> ModelCard:  # noqa: ARG001  (a file that changes is read anew)
    return validate(ModelCard, read_toml(path, "model card"), f"model card {path}")


def write_card(folder: Path, card: ModelCard) -> None:
    write_toml(folder / "card.toml", card.model_dump(exclude_none=True))
