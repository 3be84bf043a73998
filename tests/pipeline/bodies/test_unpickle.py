from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pipeline.bodies import BodyFileError, load
from pipeline.bodies.unpickle import read_pickle

Arrays = dict[str, np.ndarray]


def written(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.fixture
def fake_chumpy(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles as `chumpy.ch.Ch` does; gone again before anything is read."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x: np.ndarray) -> None:
            self.x = x
            self._dirty_vars = {"x"}

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


@pytest.mark.parametrize("protocol", [0, 2])
def test_an_official_pickle_with_chumpy_and_sparse_arrays_loads_without_chumpy(
    tmp_path: Path, tiny_smpl: Arrays, fake_chumpy: type, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    official = dict(tiny_smpl, bs_type="lrotmin")
    official["shapedirs"] = fake_chumpy(tiny_smpl["shapedirs"])
    official["J_regressor"] = sparse.csc_matrix(tiny_smpl["J_regressor"])
    content = pickle.dumps(official, protocol=protocol)
    # Module names as Python 2 and the libraries of that time wrote them.
    content = content.replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")
    content = content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    path = tmp_path / "basicmodel_neutral_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(content)
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.delitem(sys.modules, name)

    arrays = read_pickle(path)
    np.testing.assert_array_equal(arrays["shapedirs"], tiny_smpl["shapedirs"])
    np.testing.assert_array_equal(arrays["J_regressor"], tiny_smpl["J_regressor"])
    assert load(path).num_vertices == 60


def test_a_pickle_that_calls_a_function_is_refused_by_name_and_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = written(tmp_path / "SMPL_NEUTRAL.pkl", {"v_template": Malicious()})
    with pytest.raises(BodyFileError, match=r"SMPL_NEUTRAL\.pkl.*(posix|nt)\.mkdir.*refused"):
        load(path)
    assert not (tmp_path / "owned").exists()


def test_a_pickle_can_not_reach_functions_through_the_modules_that_are_let_through(tmp_path: Path) -> None:
    for reference in (b"cnumpy\nload\n.", b"cscipy.sparse\nload_npz\n.", b"cnumpy.core.multiarray\nfromfile\n."):
        path = tmp_path / "model.pkl"
        path.write_bytes(reference)
        with pytest.raises(BodyFileError, match="refused"):
            read_pickle(path)


def test_a_truncated_pickle_names_the_file(tmp_path: Path, tiny_smpl: Arrays) -> None:
    path = written(tmp_path / "model.pkl", tiny_smpl)
    whole = path.read_bytes()
    for length in (0, 1, 50, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(BodyFileError, match=r"model\.pkl.*truncated"):
            read_pickle(path)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BodyFileError, match="holds a list"):
        read_pickle(written(tmp_path / "model.pkl", [1, 2]))
