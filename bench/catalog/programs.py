"""Nets that are programs of the user's: a Python file's factory, TorchScript, torch.export, ONNX.

Opening the first three runs what they hold, so they are opened only when the user names the file on the command line
or in a call; a card can say which program it needs, by digest, but never where one lies.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

from bench.catalog.cards import ProgramKind
from bench.core.errors import BenchError, in_one_line, others_code
from bench.core.files import read_named, sha256_bytes
from bench.core.packages import optional_import
from bench.core.torch_state import plain_torch
from bench.nets.adapter import PlainEval
from bench.nets.external.onnx_runtime import OnnxRuntimeNet

if TYPE_CHECKING:
    from bench.catalog.models import ModelEntry

logger = logging.getLogger(__name__)

KINDS: tuple[ProgramKind, ...] = get_args(ProgramKind)
SUFFIXES: dict[str, ProgramKind] = {
    ".pt2": "export", ".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript", ".torchscript": "torchscript",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """A program on the disk; `factory` is the function of a Python file that makes the net, without arguments."""

    kind: ProgramKind
    path: Path
    factory: str = ""

    def build(self, sha256: str | None = None) -> tuple[nn.Module, str]:
        """The net, in float32, and the digest of the file it came from; torch's settings stay as they were.

        Args:
            sha256: refuse, before anything of it runs, a file of another digest.

        Raises:
            BenchError: unreadable, another digest, or it makes no net.
        """
        content = read_named(self.path, "the model")
        digest = sha256_bytes(content)
        if sha256 is not None and digest != sha256:
            raise BenchError(
                f"{self.path} is not the program that the model's card names (sha256 {digest[:12]}..., card says "
                f"{sha256[:12]}...).",
                option="program",
            )
        # what its code prints is no result of ours
        with plain_torch(), redirect_stdout(sys.stderr):
            net = _BUILDERS[self.kind](self, content)
        if not isinstance(net, nn.Module):
            raise BenchError(f"{self.path} gave a {type(net).__name__}, not a torch.nn.Module.")
        return net.float(), digest


def _build_python(program: Program, content: bytes) -> Any:
    with _user_errors(program), _importable(program.path.resolve().parent):
        return python_object(program, content)()


def python_object(program: Program, content: bytes) -> Any:
    """Run a Python file and give back its function; whatever the file raises comes through."""
    name = f"bench_user_{sha256_bytes(str(program.path.resolve()).encode())[:16]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(program.path))
    assert spec is not None  # noqa: S101  a spec without a loader always comes
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(program.path.resolve())
    with _importable(program.path.resolve().parent):
        sys.modules[name] = module
        # the very bytes whose digest was taken
        exec(compile(content, str(program.path), "exec"), module.__dict__)  # noqa: S102
    found = getattr(module, program.factory, None)
    if not callable(found):
        raise BenchError(f"{program.path} has no function {program.factory!r}.")
    return found


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, as `python FILE` would."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _build_torchscript(program: Program, content: bytes) -> Any:
    with _user_errors(program), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.load. is deprecated", category=FutureWarning)
        try:
            return torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "constants.pkl" not in str(error):
                raise
            raise BenchError(
                f"{program.path} holds weights or a pickled object, no TorchScript; name the code of its net, "
                "FILE.py:FACTORY, as the model, and this file as its weights.",
                option="weights",
            ) from error


def _build_export(program: Program, content: bytes) -> Any:
    problems: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        problems.append(str(record.exc_info[1]) if record.exc_info else record.getMessage())
        return False

    log = logging.getLogger("torch.export")
    log.addFilter(keep)  # torch logs a traceback and raises an error that points to it
    try:
        with _user_errors(program):
            try:
                return PlainEval(torch.export.load(io.BytesIO(content)).module())
            except RuntimeError as error:
                raise RuntimeError(problems[-1] if problems else str(error)) from error
    finally:
        log.removeFilter(keep)


def _build_onnx(program: Program, content: bytes) -> Any:
    """Converted to torch by onnx2torch, so that gradients flow; other files that it names stay shut.

    What it cannot convert is run by onnxruntime, without gradients.
    """
    onnx = optional_import("onnx", "an ONNX model", "ribench[onnx]")
    converter = optional_import("onnx2torch", "an ONNX model", "ribench[onnx]")
    with _user_errors(program):
        graph = onnx.load_model_from_string(content)
        if any(one.data_location == onnx.TensorProto.EXTERNAL for one in _tensors_of(graph.graph)):
            raise BenchError(f"{program.path} keeps weights in other files; save it as one file.")
        onnx.checker.check_model(graph)
        try:
            return converter.convert(graph)
        except NotImplementedError as error:
            optional_import("onnxruntime", f"{program.path}, which onnx2torch cannot convert,", "ribench[onnx]")
            logger.warning("%s runs by onnxruntime, without gradients, since onnx2torch lacks: %s", program.path, error)
            return OnnxRuntimeNet(content)


def _tensors_of(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors_of(inner)


def _user_errors(program: Program) -> AbstractContextManager[None]:
    what = f"{program.path}:{program.factory}" if program.factory else f"the {program.kind} file {program.path}"
    return others_code(lambda error: f"{what} gave no net ({in_one_line(error, 300)}).")


_BUILDERS: dict[str, Callable[[Program, bytes], Any]] = {
    "python": _build_python, "torchscript": _build_torchscript, "export": _build_export, "onnx": _build_onnx,
}  # fmt: skip


def parse_program(text: str) -> Program | None:
    """What `file.py:factory`, `onnx:FILE` or a file with a known suffix names; None for anything else."""
    head, _, tail = text.partition(":")
    if head in KINDS and head != "python" and tail:
        return Program(cast(ProgramKind, head), Path(tail))
    stem, separator, factory = text.rpartition(":")
    if separator and stem.endswith(".py") and factory.isidentifier():
        return Program("python", Path(stem), factory)
    suffix = Path(text).suffix
    return Program(SUFFIXES[suffix], Path(text)) if suffix in SUFFIXES else None


def with_programs(entries: Sequence[ModelEntry], programs: Sequence[Path]) -> list[ModelEntry]:
    """The entries with the file that each card asks for: that of its digest, else of its name, or a lone one.

    Raises:
        BenchError: a file that cannot be read, or that no card asks for.
    """
    digests = {sha256_bytes(read_named(path, "the program")): path for path in programs}
    names = {path.name: path for path in programs}
    asked = {entry.card.name: entry.card.program for entry in entries if entry.build is None and entry.card.program}
    own = {name: digests.get(facts.sha256) or names.get(facts.file) for name, facts in asked.items()}
    if len(programs) == 1 and not any(own.values()):
        own = dict.fromkeys(own, programs[0])
    if idle := set(programs) - set(own.values()):
        line = f"{min(idle)} is the program of none of these models, and no suite asks for it."
        if not asked:
            line = "a program is only for models whose card has a [program] section; none of these has one."
        raise BenchError(line, option="program")
    return [replace(entry, program=own.get(entry.card.name, entry.program)) for entry in entries]
