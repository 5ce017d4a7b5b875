"""Models named by their source: each must say exactly what the shipped net that it was made from says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.catalog.locations import shipped
from bench.catalog.models import load_model, resolve_models
from bench.catalog.sources import SourceOptions, is_source
from bench.catalog.state_files import read_state
from bench.core.errors import BenchError
from bench.core.names import require_safe_name
from tests.catalog.named import WEIGHTS, Images, logits_of
from tests.conftest import Bench

FACTORY = """
from bench.nets import build_net
from neighbour import PARAMETERS

def make():
    return build_net("small_cnn", PARAMETERS)

def other_each_time():
    return make()

def no_net():
    return 3

def fails():
    raise KeyError("colour")

def leaves():
    raise SystemExit(0)

class Odd(BaseException):
    pass

def raises_oddly():
    raise Odd("odd")
"""
NEIGHBOUR = "PARAMETERS = dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353])"


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "neighbour.py").write_text(NEIGHBOUR)
    (folder / "net.py").write_text(FACTORY)
    return folder / "net.py"


def test_a_factory_with_safetensors_weights(code: Path, fashion_images: Images, expected: Tensor) -> None:
    options = SourceOptions(weights=WEIGHTS)
    torch.testing.assert_close(logits_of(f"{code}:make", fashion_images[0], options), expected)


@pytest.mark.parametrize("name", ["net (1).py", "my net.py", "_net.py", "сеть.py", "[net].py"])
def test_a_file_may_have_any_name(tmp_path: Path, code: Path, name: str) -> None:
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / name).write_bytes(code.read_bytes())
    (entry,) = resolve_models([f"{tmp_path / name}:make"], options=SourceOptions(weights=WEIGHTS))
    assert entry.card.program is not None
    for made in (entry.card.id, entry.card.program.file):
        require_safe_name(made, "name")


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module.", "_orig_mod.", "model.net."])
def test_a_factory_with_a_checkpoint(
    code: Path, tmp_path: Path, fashion_images: Images, expected: Tensor, wrap: str
) -> None:
    state = read_state(WEIGHTS)
    held = {
        "plain": state,
        "state_dict": {"state_dict": state, "epoch": 3},
    } | {prefix: {prefix + key: value for key, value in state.items()} for prefix in (wrap,) if prefix.endswith(".")}
    torch.save(held[wrap], tmp_path / "w.pt")
    options = SourceOptions(weights=tmp_path / "w.pt")
    torch.testing.assert_close(logits_of(f"{code}:make", fashion_images[0], options), expected)


def test_torchscript_and_export_files(
    tmp_path: Path, standard: nn.Module, fashion_images: Images, expected: Tensor
) -> None:
    images = fashion_images[0]
    torch.jit.trace(standard, images[:2]).save(tmp_path / "net.pt")
    program = torch.export.export(standard, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    for name in ("net.pt", "net.pt2"):
        torch.testing.assert_close(logits_of(str(tmp_path / name), images), expected)
        entry = resolve_models([str(tmp_path / name)])[0]
        inputs = images[:4].clone().requires_grad_(True)
        load_model(entry)(inputs).sum().backward()
        assert inputs.grad is not None and bool(inputs.grad.abs().sum() > 0)


def test_an_export_for_a_fixed_number_of_images_is_refused_before_it_runs(
    bench: Bench, tmp_path: Path, standard: nn.Module, tiny_suite: Path
) -> None:
    for count in (1, 2):
        torch.export.save(torch.export.export(standard, (torch.rand(count, 1, 28, 28),)), tmp_path / "net.pt2")
        run = ("run", "--model", tmp_path / "net.pt2", "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
        said = bench.refused(*run)  # in the words of torch 2.6 and of later ones
        assert re.search(rf"\(1, 28, 28\) in a batch of {3 - count}: (Guard failed|Expected input)", said)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_object_runs_only_when_its_file_is_trusted(code: Path, tmp_path: Path) -> None:
    harm, path = tmp_path / "harm", tmp_path / "w.pt"
    torch.save({"state_dict": read_state(WEIGHTS), "extra": Bomb(harm)}, path)
    with pytest.raises(BenchError, match="if you trust the file's author, allow it"):
        resolve_models([f"{code}:make"], options=SourceOptions(weights=path))
    assert not harm.exists()
    assert resolve_models([f"{code}:make"], options=SourceOptions(weights=path, trust_weights=True))
    assert harm.exists()


BAD = {
    "a factory that is not there": ("{code}:made", {}, "has no function 'made'"),
    "a factory that fails": ("{code}:fails", {}, "fails gave no net .KeyError: 'colour'"),
    "something that is no net": ("{code}:no_net", {}, "gave a int, not a torch.nn.Module"),
    "a missing file": ("nowhere.py:make", {}, "cannot read the model nowhere.py"),
    "missing weights": (
        "{code}:make",
        {"weights": Path("nowhere.pt")},
        "cannot read the weights nowhere.pt: No such file",
    ),
    "a mean without a std": ("{code}:make", {"mean": (0.5,)}, "mean has 1 values, std has 0"),
    "a negative std": ("{code}:make", {"mean": (0.5,), "std": (-1.0,)}, "std.0: input should be greater than"),
    "an output twice": ("{code}:make", {"classes": (1, 1)}, "names an output twice"),
    "no TorchScript": ("{code}", {}, "gave no net"),
    "weights in place of TorchScript": (
        "{code}",
        {},
        r"net.pt holds weights .*the code of its net, FILE.py:FACTORY, as the model, and this file as its weights",
    ),
    "a factory that ends the process": ("{code}:leaves", {}, "leaves gave no net .SystemExit: 0"),
    "a factory that raises no exception": ("{code}:raises_oddly", {}, "raises_oddly gave no net .Odd: odd"),
    "a pickled object in place of an export": (
        "{code}",
        {},
        "export file .*net.pt2 gave no net .(RuntimeError|KeyError)",
    ),
    "a std that is no number": ("{code}:make", {"mean": (0.5,), "std": (float("nan"),)}, "std.0: .* finite number"),
    "a std that divides by nothing": ("{code}:make", {"mean": (0.5,), "std": (1e-50,)}, "std.0: "),
    "a file without its function": (
        "{code}",
        {},
        r"name the function of .*net.py that makes the net: .*net.py:FACTORY",
    ),
    "weights as a model": ("w.safetensors", {}, "is a file of weights; name the code of its net, FILE.py:FACTORY"),
    "an unknown source": ("tim:resnet18", {}, "tim:resnet18 names no source; use FILE.py:FACTORY, a file, or timm:"),
    "a folder of models": (str(shipped("models")), {}, "has no card.toml; a folder of many models is a registry"),
    "outputs that nobody would use": (
        "{code}:make",
        {"num_classes": 3},
        "said to have 3 outputs, but fashion_mnist has 10",
    ),
    "weights that are a folder": (
        "{code}:make",
        {"weights": Path("/")},
        "cannot read the weights /: it is no regular file",
    ),
    "an unknown torchvision net": ("torchvision:resnet19", {}, "did you mean resnet1"),
    "a name that cannot be a folder": ("{code}:make", {"model_id": "../up"}, "model id '../up' is not a plain name"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(
    code: Path, tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text, options, line = BAD[case]
    if case == "no TorchScript":
        (tmp_path / "net.pt").write_bytes(b"not a program")
        text = str(tmp_path / "net.pt")
    if case == "weights in place of TorchScript":
        torch.save({"weight": torch.zeros(1)}, tmp_path / "net.pt")
        text = str(tmp_path / "net.pt")
    if case == "a pickled object in place of an export":
        torch.save(torch.nn.Linear(1, 1), tmp_path / "net.pt2")
        text = str(tmp_path / "net.pt2")
    with pytest.raises(BenchError, match=line) as caught:
        resolve_models([text.format(code=code)], options=SourceOptions(**options))
    assert "Traceback" not in capfd.readouterr().err
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"linear2.bias": None}, "they lack 'linear2.bias'."),
        ({"extra.a": torch.zeros(1), "extra.b": torch.zeros(1)}, "the net has no 'extra.a' and 1 more."),
        ({"linear2.bias": torch.zeros(3)}, "'linear2.bias' has shape (3,), the net's (10,)."),
    ],
)
def test_weights_that_do_not_fit_are_compared_with_the_net(
    code: Path, tmp_path: Path, change: dict[str, Tensor | None], line: str
) -> None:
    state = {name: value for name, value in (read_state(WEIGHTS) | change).items() if value is not None}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(BenchError) as caught:
        resolve_models([f"{code}:make"], options=SourceOptions(weights=tmp_path / "w.safetensors"))
    assert str(caught.value) == f"the weights do not fit {code}:make: {line}"


def test_an_output_that_the_net_does_not_have_is_named(code: Path, fashion_images: Images) -> None:
    options = SourceOptions(weights=WEIGHTS, classes=(*range(9), 99))
    with pytest.raises(BenchError, match="ask for output 99, but the net has outputs 0 to 9"):
        logits_of(f"{code}:make", fashion_images[0][:2], options)


@pytest.mark.parametrize(
    ("dataset", "line"), [("../up", "data set '../up' is not a plain name"), ("mine", "say how many classes it has")]
)
def test_a_data_set_of_ones_own_needs_a_name_and_its_number_of_classes(code: Path, dataset: str, line: str) -> None:
    with pytest.raises(BenchError, match=line):
        resolve_models([f"{code}:make"], dataset, options=SourceOptions(weights=WEIGHTS))


def test_code_of_a_model_that_ends_the_process_is_no_verdict(bench: Bench, tmp_path: Path, tiny_suite: Path) -> None:
    """`bench check` in CI must not pass because something called sys.exit(0) while a weights file was unpickled."""
    (tmp_path / "net.py").write_text(
        "def make():\n    class Leave:\n        def __getattr__(self, name):\n            raise SystemExit(0)\n    return Leave()\n"
    )
    run = ("run", "--model", f"{tmp_path / 'net.py'}:make", "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert "error:" in bench.refused(*run)
    assert not (tmp_path / "board").exists()


def test_a_factory_with_other_weights_each_time_is_refused(code: Path) -> None:
    (entry,) = resolve_models([f"{code}:other_each_time"])
    with pytest.raises(BenchError, match="has other weights each time it is built"):
        load_model(entry)


def test_options_that_no_model_takes_are_refused(code: Path) -> None:
    for names in (["standard"], ["all"], [f"{code}:make", f"{code}:other_each_time"]):
        with pytest.raises(BenchError, match="weights is for one model that is named by its source"):
            resolve_models(names, options=SourceOptions(weights=WEIGHTS))


def test_names_of_the_registry_are_no_sources() -> None:
    for name in ("standard", "fashion_mnist/standard", "at_*", "models/fashion_mnist/standard", "timm", "timm:"):
        assert not is_source(name)


def test_the_digest_covers_weights_and_adaptation(code: Path) -> None:
    def digest(**options: object) -> str:
        return resolve_models([f"{code}:make"], options=SourceOptions(weights=WEIGHTS, **options))[
            0
        ].card.weights.sha256

    variants = [{}, {"mean": (0.1,), "std": (1.0,)}, {"input_size": 14}, {"classes": tuple(range(10))}]
    assert len({digest(**variant) for variant in variants}) == len(variants)
    assert digest() == digest()


@pytest.mark.parametrize(("text", "package"), [("timm:resnet18", "timm"), ("onnx:{path}", "onnx")])
def test_a_missing_package_is_named_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, package: str
) -> None:
    import sys

    (tmp_path / "net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BenchError, match=rf"needs the package {package} .*pip install 'ribench\[{package}\]'"):
        resolve_models([text.format(path=tmp_path / "net.onnx")])
