from __future__ import annotations

import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pipeline.bodies import BodyFileError, load
from pipeline.bodies.unpickle import read_pickle
from pipeline.layout import PROJECT

Arrays = dict[str, np.ndarray]


def written(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class Ch:
    """Pickles as chumpy's class of that name: its state is what it is made from."""

    def __init__(self, **state: object) -> None:
        self.__dict__.update(state, _dirty_vars={"x"}, _itr=None)


class Select(Ch):
    pass


def officially_written(path: Path, content: dict[str, object], protocol: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With chumpy's classes at chumpy's place, which is gone again before anything is read; module names as Python 2
    and the libraries of that time wrote them."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        for module, kind in (("chumpy.ch", Ch), ("chumpy.reordering", Select)):
            patch.setitem(sys.modules, module, types.ModuleType(module))
            setattr(sys.modules[module], kind.__name__, kind)
            patch.setattr(kind, "__module__", module)
        data = pickle.dumps(content, protocol=protocol)
    data = data.replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")
    path.write_bytes(data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    return path


@pytest.mark.parametrize("protocol", [0, 2])
def test_an_official_pickle_with_chumpy_and_sparse_arrays_loads_without_chumpy(
    tmp_path: Path, tiny_smpl: Arrays, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    official = dict(tiny_smpl, bs_type="lrotmin")
    official["shapedirs"] = Ch(x=tiny_smpl["shapedirs"])
    official["J_regressor"] = sparse.csc_matrix(tiny_smpl["J_regressor"])
    path = tmp_path / "basicmodel_neutral_lbs_10_207_0_v1.0.0.pkl"
    officially_written(path, official, protocol, monkeypatch)

    arrays = read_pickle(path)
    np.testing.assert_array_equal(arrays["shapedirs"], tiny_smpl["shapedirs"])
    np.testing.assert_array_equal(arrays["J_regressor"], tiny_smpl["J_regressor"])
    assert load(path).num_vertices == 60


@pytest.mark.parametrize("protocol", [0, 2])
def test_the_released_hand_with_its_selection_of_shapes_loads_and_has_its_mean_pose(
    tmp_path: Path, tiny_mano: Arrays, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    vertices = len(tiny_mano["v_template"])
    shapes = np.random.default_rng(0).normal(size=(vertices, 3, 20))
    first_ten = np.arange(shapes.size).reshape(shapes.shape)[:, :, :10]
    official = dict(tiny_mano, bs_style="lbs", hands_mean=np.linspace(-0.5, 0.5, 45))
    official["shapedirs"] = Select(a=Ch(x=shapes), idxs=first_ten.ravel(), preferred_shape=first_ten.shape)
    official["J_regressor"] = sparse.csc_matrix(tiny_mano["J_regressor"])
    path = officially_written(tmp_path / "MANO_RIGHT.pkl", official, protocol, monkeypatch)

    arrays = read_pickle(path)
    np.testing.assert_array_equal(arrays["shapedirs"], shapes[:, :, :10])
    np.testing.assert_array_equal(arrays["J_regressor"], tiny_mano["J_regressor"])
    hand = load(path, "mano")
    np.testing.assert_array_equal(hand.mean_pose, np.float32([0, 0, 0, *official["hands_mean"]]))


def test_a_selection_beyond_its_array_is_damage(
    tmp_path: Path, tiny_mano: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = dict(tiny_mano, shapedirs=Select(a=Ch(x=tiny_mano["shapedirs"]), idxs=np.array([10**6])))
    path = officially_written(tmp_path / "MANO_RIGHT.pkl", official, 2, monkeypatch)
    with pytest.raises(BodyFileError, match=r"MANO_RIGHT\.pkl: shapedirs is damaged .*download it again"):
        load(path, "mano")


class Called:
    """Unpickles by a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


def test_sparse_arrays_that_reach_into_foreign_memory_are_refused(tmp_path: Path) -> None:
    """In a process of its own, which a read that is let through ends with a signal."""
    objects = Called(np.ndarray, (2, 2), np.dtype("O"), bytes(range(32)))
    beyond = sparse.csc_matrix(np.eye(3))
    beyond.indices[:] = 2**30
    backwards = sparse.csr_matrix(np.eye(3))
    backwards.indptr[1] = -(2**30)
    wrong = (Called(sparse.csc_matrix, objects), objects, beyond, backwards)
    paths = [written(tmp_path / f"{i}.pkl", {"J_regressor": value}) for i, value in enumerate(wrong)]
    code = """
import sys
from pathlib import Path
from pipeline.bodies import BodyFileError
from pipeline.bodies.unpickle import read_pickle

for path in sys.argv[1:]:
    try:
        print(read_pickle(Path(path)))
    except BodyFileError as error:
        print("refused", error)
"""
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-500:]
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"refused {path}" for path in paths], done.stdout


def test_a_pickle_that_calls_a_function_is_refused_by_name_and_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = written(tmp_path / "SMPL_NEUTRAL.pkl", {"v_template": Malicious()})
    with pytest.raises(BodyFileError, match=r"SMPL_NEUTRAL\.pkl.*refuses (posix|nt)\.mkdir"):
        load(path)
    assert not (tmp_path / "owned").exists()


def test_a_pickle_can_not_reach_functions_through_the_modules_that_are_let_through(tmp_path: Path) -> None:
    for reference in (b"cnumpy\nload\n.", b"cscipy.sparse\nload_npz\n.", b"cnumpy.core.multiarray\nfromfile\n."):
        path = tmp_path / "model.pkl"
        path.write_bytes(reference)
        with pytest.raises(BodyFileError, match="refuses"):
            read_pickle(path)


def test_a_truncated_pickle_names_the_file(tmp_path: Path, tiny_smpl: Arrays) -> None:
    path = written(tmp_path / "model.pkl", tiny_smpl)
    whole = path.read_bytes()
    for length in (0, 1, 50, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(BodyFileError, match=r"model\.pkl: not a readable pickle.*download it again"):
            read_pickle(path)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BodyFileError, match="holds a list"):
        read_pickle(written(tmp_path / "model.pkl", [1, 2]))
