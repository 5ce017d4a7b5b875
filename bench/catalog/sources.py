"""Models that the user names by where they come from: a program, timm, torchvision, the hub, RobustBench's zoo.

`timm:NAME`, `torchvision:NAME`, `hf-hub:ORG/NAME[@REVISION]`, `robustbench:DATASET/THREAT/NAME`, `FILE.py:FACTORY`,
`torchscript:FILE`, `export:FILE`, `onnx:FILE`, or a file ending in .pt, .ts, .torchscript, .pt2 or .onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.catalog.cards import ModelCard, ProgramFacts
from bench.catalog.label_maps import LabelMap, outputs_of_classes
from bench.catalog.pretrained import Pretrained, hub_pretrained, timm_pretrained, torchvision_pretrained
from bench.catalog.programs import KINDS, Program, parse_program
from bench.catalog.state_files import read_state, weights_of
from bench.core.errors import BenchError, reason_of
from bench.core.names import require_safe_name, safe_name
from bench.core.toml_files import validate
from bench.data.specs import DATASETS
from bench.nets import build_net
from bench.nets.adapter import Adapter, AdapterSettings
from bench.nets.external.robustbench_zoo import fit_checkpoint, zoo_entry
from bench.nets.intake import plain_net

ZOOS = ("timm", "torchvision", "hf-hub", "robustbench")
METHOD = "external"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a model that is named by its source is to be taken; None leaves the source's own setting.

    Attributes:
        weights: a safetensors file or a PyTorch checkpoint with the net's state dict.
        trust_weights: unpickle objects in it too, which runs the code they name.
        mean, std: of pixels in [0, 1], per channel; empty: the net normalises by itself.
        input_size: side that images are resized to.
        classes: the net's outputs that stand for the data set's classes, in their order.
        label_map: a JSON file `{"class of the data set": output of the net}`, or from Python such a dictionary, in
            place of `classes`; or the name of the data set that the net is for, where this one is a subset of it
            (`imagenet` for imagenet100).
        num_classes: outputs of the net.
        model_id: what it is called in the leaderboard.
        download: fetch weights that are not on this machine.
        data_dir: where data sets are looked for first, whose classes a label map names.
    """

    weights: Path | None = None
    trust_weights: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    classes: tuple[int, ...] | None = None
    label_map: LabelMap | None = None
    num_classes: int | None = None
    model_id: str | None = None
    download: bool = False
    data_dir: Path | None = None

    def given(self) -> list[str]:
        """Names of the options that were set, less those that suit any model."""
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("download", "data_dir")}
        return [name for name, value in values.items() if value not in (None, False)]

    def as_options(self) -> dict[str, str | bool]:
        """What was set, as options of the command line have it; a label map must have become classes."""
        return {name: _as_option(getattr(self, name)) for name in self.given()}

    def for_classes_of(self, dataset: str) -> SourceOptions:
        """The same with `classes` in place of a label map; raises BenchError for a map that does not fit."""
        if self.label_map is None:
            return self
        if self.classes is not None:
            raise BenchError(
                "classes and a label map say the same thing; give one of them.", option=("classes", "label_map")
            )
        outputs = outputs_of_classes(self.label_map, dataset, data_dir=self.data_dir, download=self.download)
        return replace(self, classes=outputs, label_map=None)


def _as_option(value: object) -> str | bool:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return value if isinstance(value, bool) else str(value)


def is_source(text: str) -> bool:
    """Whether a model's name is that of a source, and not of the registry."""
    head, _, tail = text.partition(":")
    return (head in ZOOS and bool(tail)) or parse_program(text) is not None


@dataclass(frozen=True, slots=True)
class Built:
    """A net from a source: ready to be judged, and what a card needs to build it again."""

    net: nn.Module
    architecture: str
    parameters: dict[str, Any]
    program: ProgramFacts | None = None


@dataclass(frozen=True, slots=True)
class NamedSource:
    """A model named by its source, for one data set. Building it twice gives the same weights, or is refused.

    `options` have no label map any more: see `SourceOptions.for_classes_of`.
    """

    text: str
    dataset: str
    options: SourceOptions

    def card(self) -> ModelCard:
        """Build the net and describe it; raises BenchError if source or options are wrong."""
        built = self.build()
        self._require_outputs(built)
        card = {
            "schema_version": 1,
            "id": self._identifier(),
            "method": METHOD,
            "dataset": self.dataset,
            "description": self.text if parse_program(self.text) is None else "",
            "num_classes": None if DATASETS.get(self.dataset) else self._classes(built),
            "architecture": built.architecture,
            "architecture_parameters": built.parameters,
            "weights": weights_of(built.net),
            "program": built.program,
        }
        return validate(ModelCard, card, f"model {self.text}")

    def build(self) -> Built:
        """The net in eval mode, float32, on the CPU."""
        program = parse_program(self.text)
        built = self._from_zoo() if program is None else self._from_program(program)
        return replace(built, net=plain_net(built.net))

    def build_net(self) -> nn.Module:
        return self.build().net

    def _from_program(self, program: Program) -> Built:
        net, digest = program.build()
        if self.options.weights is not None:
            _load(net, self._state(), self.text)
        adapter = self._adapter(AdapterSettings())
        facts = ProgramFacts(
            kind=program.kind, file=safe_name(program.path.name), factory=program.factory or None, sha256=digest
        )
        return Built(Adapter(net, adapter), "program", {"adapter": _plain(adapter)}, facts)

    def _from_zoo(self) -> Built:
        head, _, name = self.text.partition(":")
        if head == "robustbench":
            return self._from_robustbench(name)
        finders = {"timm": timm_pretrained, "torchvision": torchvision_pretrained, "hf-hub": hub_pretrained}
        own = self.options.weights is not None
        found = finders[head](name, download=self.options.download, weights=not own)
        architecture = "torchvision" if head == "torchvision" else "timm"
        parameters: dict[str, Any] = {"name": found.name, "num_classes": self._outputs(found, own)}
        if architecture == "timm":
            parameters |= {"in_channels": found.in_channels}
            parameters |= {"arguments": found.arguments} if found.arguments else {}
        parameters["adapter"] = _plain(self._adapter(found.adapter))
        net = build_net(architecture, parameters)
        assert isinstance(net, Adapter)  # noqa: S101  both architectures give one
        _load(net.net, self._state() if found.state is None else found.state, self.text)
        return Built(net, architecture, parameters)

    def _outputs(self, found: Pretrained, own_weights: bool) -> int:
        if self.options.num_classes is not None:
            return self.options.num_classes
        spec = DATASETS.get(self.dataset)
        return spec.num_classes if own_weights and spec and not self.options.classes else found.num_classes

    def _from_robustbench(self, text: str) -> Built:
        parts = text.split("/")
        if len(parts) != 3:
            raise BenchError(f"{self.text} is not a RobustBench model; use robustbench:DATASET/THREAT/NAME.")
        dataset, threat, name = parts
        parameters: dict[str, Any] = {"dataset": dataset, "threat": threat, "name": name}
        drive = zoo_entry(dataset, threat, name)["gdrive_id"]
        if self.options.weights is None:
            raise BenchError(
                f"{self.text} needs its checkpoint: fetch Google Drive file {drive} (the zoo gives no digest of it, so "
                "RIBench does not fetch it by itself) and name that file.",
                option="weights",
            )
        parameters["adapter"] = _plain(self._adapter(AdapterSettings()))
        net = build_net("robustbench", parameters)
        assert isinstance(net, Adapter)  # noqa: S101  that architecture gives one
        fit_checkpoint(net.net, self._state(), name)
        return Built(net, "robustbench", parameters)

    def _state(self) -> dict[str, Tensor]:
        assert self.options.weights is not None  # noqa: S101  asked for only then
        return read_state(self.options.weights, trust=self.options.trust_weights)

    def _adapter(self, default: AdapterSettings) -> AdapterSettings:
        chosen = {name: getattr(self.options, name) for name in AdapterSettings.model_fields}
        settings = default.model_dump() | {name: value for name, value in chosen.items() if value is not None}
        return validate(AdapterSettings, settings, f"model {self.text}")

    def _classes(self, built: Built) -> int | None:
        """How many classes there are where the data set is the user's own: what is known before its images are read."""
        adapter = built.parameters.get("adapter", {})
        return len(adapter.get("classes", ())) or self.options.num_classes or built.parameters.get("num_classes")

    def _require_outputs(self, built: Built) -> None:
        """Raise BenchError for a `num_classes` that is missing, or would be left unused: a known data set says it."""
        spec, given = DATASETS.get(self.dataset), self.options.num_classes
        if spec is None and not self._classes(built):
            raise BenchError(
                f"{self.dataset} is no data set that ships; say how many classes it has.", option="num_classes"
            )
        if spec is not None and given not in (None, spec.num_classes) and not self.options.classes:
            raise BenchError(
                f"{self.text} is said to have {given} outputs, but {self.dataset} has {spec.num_classes} classes; say "
                "which outputs stand for them.",
                option=("classes", "label_map"),
            )

    def _identifier(self) -> str:
        if self.options.model_id is not None:
            return require_safe_name(self.options.model_id, "model id")
        if (program := parse_program(self.text)) is None:
            return safe_name(self.text.replace(":", "-"))
        return safe_name("-".join(filter(None, (program.path.stem, program.factory))))


def _load(net: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    state = _without_prefix(state, set(net.state_dict()))
    try:
        net.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        difference = _difference(net.state_dict(), state) or reason_of(error)
        raise BenchError(f"the weights do not fit {what}: {difference}.") from error


def _without_prefix(state: Mapping[str, Tensor], wanted: set[str]) -> Mapping[str, Tensor]:
    """The state under the net's own names, where all it has more is one prefix (`model.`, `_orig_mod.`)."""
    first = next(iter(state), "")
    for prefix in (first.removesuffix(name) for name in wanted if first.endswith(name)):
        if prefix and state.keys() == {prefix + name for name in wanted}:
            return {name: state[prefix + name] for name in wanted}
    return state


def _difference(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What the net wants and the file lacks, what is left over, and what has another shape; empty where nothing."""
    lacking = [name for name in expected if name not in state]
    left_over = sorted(name for name in state if name not in expected)
    other = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    parts = [
        f"{text} {names[0]!r}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
        for text, names in (("they lack", lacking), ("the net has no", left_over))
        if names
    ]
    if other and not parts:
        theirs, ours = (tuple(where[other[0]].shape) for where in (state, expected))
        parts.append(f"{other[0]!r} has shape {theirs}, the net's {ours}")
    return "; ".join(parts)


def _plain(settings: AdapterSettings) -> dict[str, Any]:
    """The settings as a card holds them: what is not there is left out."""
    return settings.model_dump(mode="json", exclude_defaults=True)


def misnamed(text: str) -> BenchError | None:
    """What is wrong with a name that looks as if it was meant for a source, or for a folder; None if it does not."""
    path = Path(text)
    if text.endswith(".py"):
        return BenchError(f"name the function of {text} that makes the net: {text}:FACTORY.")
    if path.suffix in (".safetensors", ".pth", ".ckpt", ".bin"):
        return BenchError(
            f"{text} is a file of weights; name the code of its net, FILE.py:FACTORY, as the model, and this file as "
            "its weights.",
            option="weights",
        )
    if ":" in text:
        return BenchError(f"{text} names no source; use FILE.py:FACTORY, a file, or {describe_kinds()}.")
    if text and path.is_dir():
        return BenchError(
            f"the folder {text} has no card.toml; a folder of many models is a registry.", option="registry"
        )
    return None


def describe_kinds() -> str:
    """The prefixes that name a source, for error lines."""
    return ", ".join(f"{name}:" for name in (*ZOOS, *KINDS) if name != "python")
