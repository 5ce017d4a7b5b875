"""An ONNX file that cannot be turned into torch: answers without gradients, for suites that need none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.core.packages import optional_import


class OnnxRuntimeNet(nn.Module):
    """Runs an ONNX graph by onnxruntime on the CPU, also where the images are on another device.

    The file's bytes are a buffer, so that the digest of the weights covers them.
    """

    content: Tensor

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._session: Any = None

    def forward(self, images: Tensor) -> Tensor:
        if self._session is None:
            runtime = optional_import("onnxruntime", "an ONNX model that torch cannot run", "ribench[onnx]")
            self._session = runtime.InferenceSession(
                self.content.cpu().numpy().tobytes(), providers=["CPUExecutionProvider"]
            )
        (first, *_) = self._session.get_inputs()
        logits, *_ = self._session.run(None, {first.name: images.detach().cpu().contiguous().numpy()})
        return torch.from_numpy(logits).to(images.device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}  # a session can be neither copied nor pickled
