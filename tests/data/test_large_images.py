"""Images of any size: resized and cropped as torchvision does it, decoded when asked for, and not before."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from bench.catalog.suites import resolve_suites
from bench.core.errors import BenchError
from bench.data import load_split
from bench.data.formats import encoded
from bench.data.formats.decoding import Preparation, decode
from bench.protocols import protocol_for


def noise(path: Path, width: int, height: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def declare(root: Path, name: str, lines: str) -> None:
    (root / f"{name}.toml").write_text(f"schema_version = 1\n{lines}\n")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """24 images of several sizes in two classes."""
    for number in range(24):
        noise(tmp_path / "many" / "val" / "ab"[number % 2] / f"{number:02}.png", 300 + 7 * number, 310, number)
    declare(tmp_path, "many", 'test = "many/val"\nresize = 256\ncrop = 224')
    return tmp_path


@pytest.mark.parametrize(("width", "height"), [(300, 401), (401, 300), (256, 256), (100, 70), (225, 224)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_and_crop_are_torchvisions_to_the_bit(
    tmp_path: Path, width: int, height: int, interpolation: str
) -> None:
    path = noise(tmp_path / "x.png", width, height)
    mode = transforms.InterpolationMode(interpolation)
    with Image.open(path) as image:
        expected = transforms.CenterCrop(224)(transforms.Resize(256, mode)(image.convert("RGB")))
    found = decode(path.read_bytes(), Preparation(3, 256, 224, interpolation), "x")  # type: ignore[arg-type]
    assert np.array_equal(found, np.asarray(expected))


def test_only_the_images_that_are_asked_for_are_decoded(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(encoded, "decode", lambda *given: decoded.append(given[2]) or decode(*given))
    data = load_split("many", "test", data_dir=many)
    assert data.shape == (24, 3, 224, 224) and len(data.sha256) == 64
    assert decoded == []
    data.pixels(slice(4, 7))
    data.pixels(torch.tensor([20, 2]))
    assert [Path(name).stem for name in decoded] == ["04", "05", "06", "20", "02"]


def test_memory_is_bounded_by_the_batch_and_not_by_the_number_of_images(many: Path) -> None:
    data = load_split("many", "test", data_dir=many)

    def peak(count: int) -> int:
        tracemalloc.start()
        for begin in range(0, count, 4):
            assert data.pixels(slice(begin, begin + 4)).shape[0] == 4
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(4)  # what is imported and kept on first use
    assert peak(24) < 1.3 * peak(4)


def test_a_work_unit_of_large_images_is_small() -> None:
    protocol = protocol_for(resolve_suites(["cross_norm"])[0])
    assert protocol.units(1000, 28 * 28) == protocol.units(1000, 3 * 32 * 32)
    assert [stop - start for start, stop in protocol.units(140, 3 * 224 * 224)] == [66, 66, 8]
    assert protocol.units(3, 10**9) == [(0, 1), (1, 2), (2, 3)]


def test_the_digest_tells_the_preparation_apart(many: Path) -> None:
    first = load_split("many", "test", data_dir=many).sha256
    assert load_split("many", "test", data_dir=many).sha256 == first
    declare(many, "many", 'test = "many/val"\nresize = 232\ncrop = 224')
    assert load_split("many", "test", data_dir=many).sha256 != first


def test_the_mean_colour_is_that_of_all_images(many: Path) -> None:
    data = load_split("many", "test", data_dir=many)
    assert torch.allclose(data.channel_means, data.pixels(slice(None)).mean((0, 2, 3)), atol=1e-6)


def test_large_images_of_several_sizes_need_a_declaration(many: Path) -> None:
    (many / "many.toml").unlink()
    noise(many / "many" / "val" / "a" / "00.png", 310, 310)
    with pytest.raises(BenchError, match="set `resize` and `crop` in a TOML file"):
        load_split("many", "test", data_dir=many).pixels(slice(0, 2))


@pytest.mark.parametrize(
    ("width", "height", "lines", "reason"),
    [
        (100, 90, "crop = 96", "smaller than the crop of 96"),
        (5000, 2, "resize = 256\ncrop = 224", "too long to resize"),
    ],
)
def test_an_image_that_cannot_be_prepared_is_named(
    tmp_path: Path, width: int, height: int, lines: str, reason: str
) -> None:
    noise(tmp_path / "odd" / "a" / "x.png", width, height)
    noise(tmp_path / "odd" / "b" / "x.png", width, height)
    declare(tmp_path, "odd", f'test = "odd"\n{lines}')
    with pytest.raises(BenchError, match=rf"a/x\.png is {width}x{height}, .*{reason}"):
        load_split("odd", "test", data_dir=tmp_path).pixels(slice(0, 1))
