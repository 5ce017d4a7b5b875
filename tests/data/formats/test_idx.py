from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import BenchError
from bench.data.formats.idx import parse_idx, read_idx


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.randoms())
def test_what_was_written_is_read(count: int, height: int, width: int, random: object) -> None:
    values = np.random.default_rng(count).integers(0, 256, (count, height, width))
    assert (parse_idx(idx(values), 3, "file").numpy() == values).all()


@settings(max_examples=200)
@given(st.binary(max_size=64))
def test_any_other_bytes_give_the_clear_error_and_nothing_else(content: bytes) -> None:
    try:
        parse_idx(content, 3, "file")
    except BenchError as error:
        assert "fetch it again" in str(error)


def test_plain_and_compressed_files_are_read_alike(tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(values))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(values)))
    assert (read_idx(tmp_path / "plain", 3) == read_idx(tmp_path / "packed.gz", 3)).all()


def test_a_truncated_compressed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.gz").write_bytes(gzip.compress(idx(np.arange(2400).reshape(2, 30, 40)))[:-20])
    with pytest.raises(BenchError, match=r"cannot read|fetch it again"):
        read_idx(tmp_path / "half.gz", 3)


def test_no_more_is_unpacked_than_the_header_announces(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.gz", "wb", 1) as stream:
        stream.write(idx(np.arange(24).reshape(2, 3, 4)))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BenchError, match="24 values but has more"):
            read_idx(tmp_path / "bomb.gz", 3)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
