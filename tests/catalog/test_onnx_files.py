"""ONNX files: the logits of the net that they were made from, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.catalog.models import resolve_models
from bench.catalog.state_files import read_state
from bench.core.errors import BenchError
from tests.catalog.named import WEIGHTS, Images, logits_of
from tests.conftest import Bench


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


def test_an_onnx_file_that_names_other_files_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make_onnx(read_state(WEIGHTS), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    with pytest.raises(BenchError, match="keeps weights in other files"):
        resolve_models([str(tmp_path / "split.onnx")])
