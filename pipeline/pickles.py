"""Reading pickles that others made, data sets and body models, without letting them run code.

A pickle names callables and what to call them with. NumPy's own are not harmless: an array of objects made from the
bytes of a file takes them for addresses, and that ends the process. So a pickle gets to call stand-ins alone, which
check what it says and build plain arrays.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

UNREADABLE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What a damaged pickle can fail with, in any of its instructions."""


class Kept:
    """Stands for an object of another library: keeps its state, for a reader that knows what it means."""

    state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Dtype:
    """Stands for `numpy.dtype`: called with a code, then given the byte order in its state."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch("[biufcSU][0-9]+|O8?", code):
            raise pickle.UnpicklingError(f"refuses an array of {code}: only numbers, text and objects are read")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # Version, order, base, names and fields of records; what follows is known from the code.
        _, order, *records = state[:5]
        if len(state) != 8 or order not in ("<", ">", "=", "|") or records != [None] * 3:
            raise pickle.UnpicklingError("refuses an array of records: only numbers, text and objects are read")
        self.order = order


class _Array:
    """Stands for `numpy.ndarray`, and for NumPy's function that makes an empty one of that class."""

    values: NDArray | list[Any]

    def __init__(self, kind: object, *_: object) -> None:
        if kind is not _Array:
            raise pickle.UnpicklingError("refuses an array that is not made as NumPy's own pickles make it")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        if isinstance(dtype, _Dtype) and dtype.code.startswith("O"):
            # NumPy lists what the objects are; their bytes would be addresses.
            if not isinstance(data, list) or shape != (len(data),):
                raise pickle.UnpicklingError("refuses an array of objects that does not list them one by one")
            self.values = data
        else:
            self.values = _array(data, dtype, shape, "F" if by_columns else "C")


def _array(data: Any, dtype: object, shape: Any, order: Any) -> NDArray:
    """An array of its own memory in this machine's byte order; an error of UNREADABLE when the parts do not fit."""
    if not isinstance(dtype, _Dtype) or dtype.code.startswith("O"):
        raise pickle.UnpicklingError("refuses an array without a dtype of its own, or of objects from bytes")
    # Python 2 had text where there are bytes.
    stored = np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.order + dtype.code)
    return stored.reshape(shape, order=order).astype(stored.dtype.newbyteorder("="), order="K")


def _from_buffer(data: object, dtype: object, shape: object, order: str, *axes: Any) -> NDArray:
    """Stands for what protocol 5 makes arrays with; `axes` are those of an array in the order "K".

    No default values here: a pickle may set those of a function, for all that are read after it.
    """
    if order != "K":
        return _array(data, dtype, shape, order)
    [as_stored] = axes
    return _array(data, dtype, shape, "C").transpose(as_stored)


def _scalar(dtype: object, data: object) -> Any:
    return _array(data, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 spells bytes with; only the encoding NumPy uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refuses to encode text as {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[str, object] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
}


class ArraysOnly(pickle.Unpickler):
    """Builds plain containers, numbers, text and NumPy arrays; a subclass may know names of more."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed `core`; files hold either name.
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in _STAND_INS:
            raise pickle.UnpicklingError(f"refuses {module}.{name}: only arrays and plain containers are read")
        return _STAND_INS[full]


def load_arrays(path: Path, unpickler: type[ArraysOnly] = ArraysOnly) -> object:
    """The content of a pickle of arrays, lists, dicts, numbers and text (Python 2 or 3); a row of objects is a list.

    Raises ValueError naming the file when it is damaged or asks for anything else, arrays of records included.
    """
    try:
        with path.open("rb") as file:
            return _with_arrays(unpickler(file).load(), {})
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not a readable pickle of arrays ({reason})") from error


def _with_arrays(value: Any, done: dict[int, Any]) -> Any:
    """The same with arrays in the places of their stand-ins; `done` are the containers seen, which may hold each
    other."""
    if isinstance(value, _Array):
        return value.values if isinstance(value.values, np.ndarray) else _with_arrays(value.values, done)
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, tuple):
        done[id(value)] = tuple(_with_arrays(part, done) for part in value)
        return done[id(value)]
    done[id(value)] = value
    if isinstance(value, list):
        value[:] = [_with_arrays(part, done) for part in value]
    elif isinstance(value, dict):
        value.update({key: _with_arrays(part, done) for key, part in value.items()})
    elif isinstance(value, Kept):
        value.state = _with_arrays(value.state, done)
    return value
