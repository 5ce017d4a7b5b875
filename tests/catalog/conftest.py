from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.catalog.named import Images


@pytest.fixture
def expected(standard: nn.Module, fashion_images: Images) -> Tensor:
    with torch.no_grad():
        return standard(fashion_images[0])
