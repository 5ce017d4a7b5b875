from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.adapters.foolbox import hop_skip_jump, import_foolbox


def test_foolbox_is_imported_where_no_git_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitPython, which it imports, raises without git unless this variable tells it not to."""
    (tmp_path / "foolbox.py").write_text("import os\nVALUE = os.environ['GIT_PYTHON_REFRESH']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "to be put back")
    monkeypatch.delenv("GIT_PYTHON_REFRESH")
    monkeypatch.delitem(sys.modules, "foolbox", raising=False)
    assert import_foolbox().VALUE == "quiet"
    del sys.modules["foolbox"]


class DarkIsZero(nn.Module):
    """Class 0 for dark images and for all noise, 1 for bright ones."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.flatten(1).mean(1) - 0.7
        return torch.stack([-brightness, brightness], 1)


def test_hop_skip_jump_starts_from_another_image_where_no_noise_fools_the_model() -> None:
    """One image without a start left the whole batch as it was."""
    images = torch.stack([torch.full((1, 4, 4), value) for value in (0.65, 0.75, 0.76)])
    labels = torch.tensor([0, 1, 1])
    eps, net = torch.full((3,), 1.0, dtype=torch.float64), DarkIsZero().eval()
    torch.manual_seed(0)
    found = hop_skip_jump(net, images, labels, norm="l2", eps=eps, steps=2).images
    assert found is not None and (net(found).argmax(1) != labels).all()
    assert torch.equal(hop_skip_jump(net, images[:1], labels[:1], norm="l2", eps=eps[:1], steps=2).images, images[:1])


def test_hop_skip_jump_does_not_swallow_what_the_model_raises() -> None:
    class Raises(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("the net's own")

    with pytest.raises(ValueError, match="the net's own"):
        hop_skip_jump(Raises(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), norm="l2", eps=torch.ones(2), steps=2)
