"""Arrays come out of pickles as they went in, of any NumPy; whatever else a pickle asks for is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.layout import PROJECT
from pipeline.pickles import load_arrays

GRID = np.arange(24.0).reshape(2, 3, 4)
ARRAYS = [
    GRID, GRID[0].T, GRID.transpose(1, 0, 2), GRID[:, ::2], GRID.astype(">f4"), np.array(3.0),
    np.array([True, False]), np.uint32([7, 2**32 - 1]), np.array([1 + 2j]), np.array(["é", "ab"]), np.array([b"ab"]),
]  # fmt: skip


def written(path: Path, content: object, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize(
    ("protocol", "core"), [(0, "core"), (0, "_core"), (2, "core"), (2, "_core"), (4, "_core"), (5, "_core")]
)
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, protocol: int, core: str) -> None:
    for array in ARRAYS:
        data = pickle.dumps({"a": [array, (array,)]}, protocol=protocol)
        (tmp_path / "a.pkl").write_bytes(data.replace(b"numpy._core.", f"numpy.{core}.".encode()))
        content: Any = load_arrays(tmp_path / "a.pkl")
        [found, (again,)] = content["a"]
        assert found is again
        assert (found.dtype, found.strides) == (array.dtype.newbyteorder("="), pickle.loads(data)["a"][0].strides)
        assert found.flags.writeable and found.flags.aligned
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_numbers_of_numpy_and_plain_containers_are_read(tmp_path: Path, protocol: int) -> None:
    content = {"n": np.float64(3), "i": (np.uint8(7), 1, 2.5), "t": np.str_("é"), "k": [None, True, {"x": [1]}]}
    found: Any = load_arrays(written(tmp_path / "a.pkl", content, protocol))
    assert found == content
    assert [type(found["n"]), type(found["i"][0]), type(found["t"])] == [np.float64, np.uint8, np.str_]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_row_of_objects_is_a_list_of_them(tmp_path: Path, protocol: int) -> None:
    row = np.empty(2, object)
    row[:] = ["f", np.arange(3.0)]
    found: Any = load_arrays(written(tmp_path / "a.pkl", {"row": row, "grid": GRID}, protocol))
    assert found["row"][0] == "f"
    np.testing.assert_array_equal(found["row"][1], [0, 1, 2])
    np.testing.assert_array_equal(found["grid"], GRID)


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """As its NumPy wrote them: bytes are text there."""
    path = tmp_path / "a.pkl"
    data = np.float64([0.0, -1.5]).tobytes()
    path.write_bytes(
        b"\x80\x02}U\x05posescnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x10" + data + b"tbs."
    )
    found: Any = load_arrays(path)
    np.testing.assert_array_equal(found["poses"], [0.0, -1.5])


def test_containers_that_hold_each_other_are_read(tmp_path: Path) -> None:
    ring: list[Any] = [np.arange(3)]
    ring.append({"ring": (ring,)})
    found: Any = load_arrays(written(tmp_path / "a.pkl", ring, 2))
    np.testing.assert_array_equal(found[0], [0, 1, 2])
    assert found[1]["ring"][0] is found


class Called:
    """Unpickles by a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


class Built(Called):
    """Unpickles by a call, then given a state."""

    def __reduce__(self) -> tuple:
        *call, state = self.call
        return call[0], tuple(call[1:]), state


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Called(os.system, "true"), r"refuses (posix|nt)\.system"),
        (Called(np.load, "a.npy"), r"refuses numpy\.load"),
        (Called(eval, "1"), r"refuses (builtins|__builtin__)\.eval"),
        (np.array([[None]]), "refuses an array of objects that does not list them"),
        (np.zeros(2, "i4,f8"), "refuses an array of V12"),
        (np.array(["2020"], "M8[D]"), "refuses an array of M8"),
    ],
    ids=["system", "load", "eval", "objects", "records", "dates"],
)
def test_what_is_no_array_of_numbers_or_text_is_refused_by_name(tmp_path: Path, content: object, reason: str) -> None:
    for protocol in (2, 4):
        with pytest.raises(ValueError, match=rf"a\.pkl: not a readable pickle of arrays \(({reason})"):
            load_arrays(written(tmp_path / "a.pkl", content, protocol))


def test_a_crafted_pickle_ends_in_an_error_and_not_the_process(tmp_path: Path) -> None:
    """In a process of its own, which a read that is let through ends with a signal."""
    addresses = b"\x10\x20\x30\x40\x50\x60\x00\x00"
    objects, numbers = np.dtype("O"), np.dtype("f8")
    reconstruct = np.empty(0).__reduce__()[0]
    empty = (reconstruct, np.ndarray, (0,), b"b")
    as_records = (3, "|", None, ("x",), {"x": (objects, 0)}, 8, 1, 27)
    contents = [
        Called(np.ndarray, (1,), objects, addresses),
        Called(np.ndarray, (1,), "O", addresses),
        Called(reconstruct, np.ndarray, (1,), b"O"),
        Built(*empty, (1, (1,), objects, False, addresses)),
        Built(*empty, (1, (1,), "O", False, addresses)),
        Built(*empty, (1, (1,), Built(np.dtype, "V8", False, True, as_records), False, addresses)),
        Built(*empty, (1, (1,), Built(np.dtype, "f8", False, True, as_records), False, addresses)),
        # Together with the code this names a record.
        Built(
            *empty, (1, (1,), Built(np.dtype, "f8", False, True, (3, "O,", None, None, None, -1, -1, 0)), 0, addresses)
        ),
        Built(*empty, (1, (1,), Built(np.dtype, "i4,O", False, True, (3, "|", *[None] * 3, -1, -1, 0)), 0, addresses)),
        Built(*empty, (1, (2**40,), numbers, False, addresses)),
        Built(*empty, (1, (-1, 2**62), numbers, False, addresses)),
        Built(*empty, (1, 5)),
        Called(np.float64(0).__reduce__()[0], objects, addresses),
        Called(np.float64(0).__reduce__()[0], numbers, addresses + addresses),
        Called(np.arange(1).__reduce_ex__(5)[0], addresses, objects, (1,), "C"),
        Called(np.arange(1).__reduce_ex__(5)[0], addresses, numbers, (1,), "K", (0, 0)),
    ]
    paths = [written(tmp_path / f"{index}.pkl", content, 4) for index, content in enumerate(contents)]
    deep = 100_000
    for name, data in {
        "frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
        "deep": b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        "new": b"\x80\x02cnumpy\nndarray\n(K\x01\x85X\x01\x00\x00\x00OC\x08" + addresses + b"t\x81.",
        "unbuilt": b"\x80\x02cnumpy\nndarray\n)\x81.",
    }.items():
        paths.append(tmp_path / f"{name}.pkl")
        paths[-1].write_bytes(data)
    code = """
import sys
from pathlib import Path
from pipeline.pickles import load_arrays

for path in sys.argv[1:]:
    try:
        print(load_arrays(Path(path)))
    except ValueError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-500:]
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{path}: not a readable pickle of arrays ("), line


def test_a_pickle_does_not_change_how_the_next_one_is_read(tmp_path: Path) -> None:
    """What is let through is asked to turn arrays, as an attribute of it would have it."""
    for name in (b"core.numeric\n_frombuffer", b"core.multiarray\nscalar", b"core.multiarray\n_reconstruct"):
        for attribute in (b"\x0c\x00\x00\x00__defaults__", b"\x06\x00\x00\x00values"):
            path = tmp_path / "crafted.pkl"
            path.write_bytes(b"\x80\x02cnumpy." + name + b"\nN}X" + attribute + b"K\x01K\x00\x86\x85s\x86b.")
            with contextlib.suppress(ValueError):
                load_arrays(path)
    for protocol in (2, 5):
        np.testing.assert_array_equal(load_arrays(written(tmp_path / "a.pkl", GRID[0], protocol)), GRID[0])


@pytest.fixture(scope="module")
def little_memory() -> Iterator[None]:
    """Python itself makes room for as many objects as a damaged pickle announces: half a GB is all that it gets."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**29, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (before, hard))


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_pickle_is_read_or_named(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, little_memory: None
) -> None:
    content = {"poses": [np.zeros((2, 3))], "genders": ["m"], "n": np.float64(3), "k": (np.arange(3, dtype=np.uint32),)}
    damaged = bytearray(pickle.dumps(content, protocol=data.draw(st.sampled_from([0, 2, 4, 5]))))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=3)):
        damaged[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(damaged)
    try:
        load_arrays(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: not a readable pickle of arrays (")
