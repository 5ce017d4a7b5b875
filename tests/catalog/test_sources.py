"""Models named by their source: each must say exactly what the shipped net that it was made from says."""

from __future__ import annotations

import hashlib
import json
import os
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
from tests.conftest import Bench

WEIGHTS = shipped("models") / "fashion_mnist" / "standard" / "weights.safetensors"
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
"""
NEIGHBOUR = "PARAMETERS = dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353])"


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "neighbour.py").write_text(NEIGHBOUR)
    (folder / "net.py").write_text(FACTORY)
    return folder / "net.py"


def logits_of(text: str, images: Tensor, options: SourceOptions | None = None, dataset: str | None = None) -> Tensor:
    (entry,) = resolve_models([text], dataset, options=options)
    with torch.no_grad():
        return load_model(entry)(images)


@pytest.fixture
def expected(standard: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return standard(fashion_images[0])


Images = tuple[Tensor, Tensor]


def test_a_factory_with_safetensors_weights(code: Path, fashion_images: Images, expected: Tensor) -> None:
    options = SourceOptions(weights=WEIGHTS)
    torch.testing.assert_close(logits_of(f"{code}:make", fashion_images[0], options), expected)


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


def make_onnx(state: dict[str, Tensor], path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, arrays = onnx.helper, onnx.numpy_helper
    names = [f"{layer}.{kind}" for layer in ("conv1", "conv2", "linear1", "linear2") for kind in ("weight", "bias")]
    weights = [arrays.from_array(state[name].numpy(), name) for name in names]
    weights += [arrays.from_array(state[f"normalization.{name}"].numpy(), name) for name in ("mean", "std")]
    convolution = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Sub", ["images", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        helper.make_node("Conv", ["normal", "conv1.weight", "conv1.bias"], ["a"], **convolution),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], **convolution),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "linear1.weight", "linear1.bias"], ["f"], transB=1),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "linear2.weight", "linear2.bias"], ["logits"], transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [value("images", 1, ["N", 1, 28, 28])], [value("logits", 1, ["N", 10])], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_an_onnx_file_gives_the_same_logits_as_the_net_and_as_onnxruntime(
    tmp_path: Path, fashion_images: Images, expected: Tensor
) -> None:
    pytest.importorskip("onnx2torch")
    path = tmp_path / "net.onnx"
    make_onnx(read_state(WEIGHTS), path)
    found = logits_of(str(path), fashion_images[0])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    runtime = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    (theirs,) = runtime.run(None, {"images": fashion_images[0].numpy()})
    torch.testing.assert_close(found, torch.from_numpy(theirs), atol=2e-5, rtol=1e-4)


def test_an_onnx_file_that_torch_cannot_run_is_judged_by_suites_without_gradients(bench: Bench, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    matrix = torch.randn(784, 10, generator=torch.Generator().manual_seed(0))
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Mish", ["m"], ["y"]),  # onnx2torch does not know it
    ]
    graph = helper.make_graph(
        nodes, "net", [value("x", TensorProto.FLOAT, ["N", 1, 28, 28])], [value("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(matrix.numpy(), "w")],
    )  # fmt: skip
    path = tmp_path / "mish.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    images = torch.rand(3, 1, 28, 28)
    expected = torch.nn.functional.mish(images.flatten(1) @ matrix)
    torch.testing.assert_close(logits_of(str(path), images), expected, atol=1e-4, rtol=1e-4)
    run = ("run", "--model", path, "--examples", 3, "--leaderboard", tmp_path / "board", "--device", "cpu")
    assert "has no gradient, which suite cross_norm_quick needs" in bench.refused(*run, "--suite", "cross_norm_quick")
    code, _, err = bench(*run, "--suite", "corruptions")
    assert code == 0, err
    registry = tmp_path / "mine"
    assert bench("models", "add", path, "--registry", registry, "--examples", 20)[0] == 0
    code, out, _ = bench("models", "verify", "mish", "--registry", registry, "--program", path, "--examples", 20)
    assert code == 0 and "1 right" in out


def test_an_export_for_a_fixed_number_of_images_is_refused_before_it_runs(
    bench: Bench, tmp_path: Path, standard: nn.Module, tiny_suite: Path
) -> None:
    for count in (1, 2):
        torch.export.save(torch.export.export(standard, (torch.rand(count, 1, 28, 28),)), tmp_path / "net.pt2")
        run = ("run", "--model", tmp_path / "net.pt2", "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
        assert f"(1, 28, 28) in a batch of {3 - count}: Guard failed" in bench.refused(*run)


def test_an_onnx_file_that_names_other_files_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make_onnx(read_state(WEIGHTS), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    with pytest.raises(BenchError, match="keeps weights in other files"):
        resolve_models([str(tmp_path / "split.onnx")])


def test_a_timm_net_with_weights_of_its_own(tmp_path: Path, fashion_images: Images) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    net = timm.create_model("test_resnet", num_classes=10).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    options = SourceOptions(weights=tmp_path / "w.safetensors", input_size=32)
    images = fashion_images[0][:4]
    found = logits_of("timm:test_resnet", images, options)
    resized = nn.functional.interpolate(images.expand(-1, 3, -1, -1), (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(found, net((resized - 0.5) / 0.5), atol=1e-5, rtol=1e-4)


def hub_cache(root: Path, files: dict[str, bytes]) -> None:
    """The cache of the Hugging Face hub as its client lays it out: blobs by digest, links to them by name."""
    folder = root / "models--someone--net"
    snapshot = folder / "snapshots" / ("c" * 40)
    for part in (snapshot, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text("c" * 40)
    for name, content in files.items():
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = folder / "blobs" / (git if name.endswith(".json") else hashlib.sha256(content).hexdigest())
        blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))


def test_a_hub_model_comes_from_the_cache_with_its_digest_checked(
    tmp_path: Path, fashion_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BenchError, match="not in the cache of the Hugging Face hub; fetch it with --download"):
        resolve_models(["hf-hub:someone/net"])
    torch.manual_seed(4)
    net = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    save_file(net.state_dict(), tmp_path / "w")
    settings = {"mean": [0.2], "std": [0.4], "input_size": [1, 28, 28]}
    config = {"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": settings}
    hub_cache(
        tmp_path, {"config.json": json.dumps(config).encode(), "model.safetensors": (tmp_path / "w").read_bytes()}
    )
    images = fashion_images[0][:4]
    with torch.no_grad():
        torch.testing.assert_close(logits_of("hf-hub:someone/net", images), net((images - 0.2) / 0.4))
    (blob,) = (path for path in (tmp_path / "models--someone--net" / "blobs").iterdir() if len(path.name) == 64)
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(BenchError, match="does not match its digest"):
        resolve_models(["hf-hub:someone/net"])


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "pretrained"])
def test_arguments_of_a_hubs_config_cannot_load_anything(argument: str) -> None:
    pytest.importorskip("timm")
    from bench.nets import build_net

    with pytest.raises(BenchError, match="could load something"):
        build_net("timm", {"name": "test_resnet", "num_classes": 10, "arguments": {argument: "/etc/passwd"}})
    with pytest.raises(BenchError, match="unknown timm model"):
        build_net("timm", {"name": "local-dir:/etc", "num_classes": 10})


def test_torchvision_weights_are_checked_by_the_digest_in_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(BenchError, match=r"not on this machine .*fetch them with --download"):
        resolve_models(["torchvision:squeezenet1_1"])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"something else")
    with pytest.raises(BenchError, match="does not match the digest in its name"):
        resolve_models(["torchvision:squeezenet1_1"])


def test_a_torchvision_net_with_a_class_subset(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(5)
    net = models.squeezenet1_1(num_classes=12).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    (tmp_path / "map.json").write_text(json.dumps({str(digit): 11 - digit for digit in range(10)}))
    images = torch.rand(2, 1, 28, 28)
    common = {"weights": tmp_path / "w.pth", "num_classes": 12, "input_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    subset = SourceOptions(**common, classes=tuple(range(11, 1, -1)))
    found = logits_of("torchvision:squeezenet1_1", images, subset, "mnist")
    resized = nn.functional.interpolate(images.expand(-1, 3, -1, -1), (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(found, net((resized - 0.5) / 0.5)[:, range(11, 1, -1)])
    mapped = SourceOptions(**common, label_map=tmp_path / "map.json")
    torch.testing.assert_close(logits_of("torchvision:squeezenet1_1", images, mapped, "mnist"), found)


def test_a_robustbench_net_from_a_checkpoint_in_the_zoos_format(tmp_path: Path) -> None:
    for package in ("timm", "robustbench", "geotorch", "torchdiffeq"):
        if importlib_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from bench.nets.robustbench_zoo import build_robustbench_net

    name = "robustbench:cifar10/Linf/Wong2020Fast"
    with pytest.raises(BenchError, match="needs its checkpoint: fetch Google Drive file"):
        resolve_models([name], "cifar10")
    torch.manual_seed(6)
    net = build_robustbench_net("cifar10", "Linf", "Wong2020Fast").eval()
    constants = {"mu", "sigma", "mean", "std"}
    state = {f"module.{key}": value for key, value in net.state_dict().items() if key not in constants}
    torch.save({"state_dict": state}, tmp_path / "zoo.pt")
    images = torch.rand(2, 3, 32, 32)
    found = logits_of(name, images, SourceOptions(weights=tmp_path / "zoo.pt"), "cifar10")
    with torch.no_grad():
        torch.testing.assert_close(found, net(images))
    state.popitem()
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(BenchError, match="not one of robustbench's Wong2020Fast"):
        resolve_models([name], "cifar10", options=SourceOptions(weights=tmp_path / "short.pt"))
    with pytest.raises(BenchError, match="did you mean Wong2020Fast"):
        resolve_models(["robustbench:cifar10/Linf/Wang2020Fast"], "cifar10")


def importlib_spec(package: str) -> object:
    from importlib.util import find_spec

    return find_spec(package)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_object_runs_only_when_its_file_is_trusted(code: Path, tmp_path: Path) -> None:
    harm, path = tmp_path / "harm", tmp_path / "w.pt"
    torch.save({"state_dict": read_state(WEIGHTS), "extra": Bomb(harm)}, path)
    with pytest.raises(BenchError, match="only if you trust whoever made the file, pass --trust-weights"):
        resolve_models([f"{code}:make"], options=SourceOptions(weights=path))
    assert not harm.exists()
    assert resolve_models([f"{code}:make"], options=SourceOptions(weights=path, trust_weights=True))
    assert harm.exists()


BAD = {
    "a factory that is not there": ("{code}:made", {}, "has no function 'made'"),
    "a factory that fails": ("{code}:fails", {}, "fails gave no net .KeyError: 'colour'"),
    "something that is no net": ("{code}:no_net", {}, "gave a int, not a torch.nn.Module"),
    "a missing file": ("nowhere.py:make", {}, "cannot read the model nowhere.py"),
    "missing weights": ("{code}:make", {"weights": Path("nowhere.pt")}, "the weights nowhere.pt do not exist"),
    "a mean without a std": ("{code}:make", {"mean": (0.5,)}, "mean has 1 values, std has 0"),
    "a negative std": ("{code}:make", {"mean": (0.5,), "std": (-1.0,)}, "std.0: input should be greater than 0"),
    "an output twice": ("{code}:make", {"classes": (1, 1)}, "names an output twice"),
    "no TorchScript": ("{code}", {}, "gave no net"),
    "weights in place of TorchScript": (
        "{code}",
        {},
        r"net.pt holds weights .* --model FILE.py:FACTORY --weights .*net.pt",
    ),
    "a factory that ends the process": ("{code}:leaves", {}, "leaves gave no net .SystemExit: 0"),
    "a file without its function": (
        "{code}",
        {},
        r"name the function of .*net.py that makes the net: .*net.py:FACTORY",
    ),
    "weights as a model": ("w.safetensors", {}, "is a file of weights; name the code of its net too"),
    "an unknown source": ("tim:resnet18", {}, "tim:resnet18 names no source; use FILE.py:FACTORY, a file, or timm:"),
    "a folder of models": (str(shipped("models")), {}, "has no card.toml; a folder of many models goes to --registry"),
    "outputs that nobody would use": (
        "{code}:make",
        {"num_classes": 3},
        "said to have 3 outputs, but fashion_mnist has 10",
    ),
    "weights that are a folder": ("{code}:make", {"weights": Path("/")}, "the weights / are no file"),
    "an unknown torchvision net": ("torchvision:resnet19", {}, "did you mean resnet1"),
    "a name that cannot be a folder": ("{code}:make", {"model_id": "../up"}, "--model-id '../up' is not a plain name"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(code: Path, tmp_path: Path, case: str) -> None:
    text, options, line = BAD[case]
    if case == "no TorchScript":
        (tmp_path / "net.pt").write_bytes(b"not a program")
        text = str(tmp_path / "net.pt")
    if case == "weights in place of TorchScript":
        torch.save({"weight": torch.zeros(1)}, tmp_path / "net.pt")
        text = str(tmp_path / "net.pt")
    with pytest.raises(BenchError, match=line) as caught:
        resolve_models([text.format(code=code)], options=SourceOptions(**options))
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
    ("dataset", "line"), [("../up", "data set '../up' is not a plain name"), ("mine", "--num-classes N")]
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
        with pytest.raises(BenchError, match="--weights is for one model that is named by its source"):
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
