"""Weight files and a disk that is full."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import torch

from models.weight_files import read_weight_file, write_safetensors


def test_a_full_disk_is_named_with_the_file_and_what_lay_there_still_does(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"x": torch.ones(4)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as if 100 kB were left
    try:
        with pytest.raises(OSError, match=r"too large: '.*model\.safetensors'") as caught:
            write_safetensors(path, {"x": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG  # ENOSPC, where the disk itself is full
    assert torch.equal(read_weight_file(path).state["x"], torch.ones(4))
    assert list(tmp_path.iterdir()) == [path]
