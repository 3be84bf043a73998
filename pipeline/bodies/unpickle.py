"""Reads the official SMPL and MANO pickles without running anything that is inside them.

A pickle can name any function to call; only numpy, scipy.sparse and the chumpy array of
the original files are let through, and chumpy itself is not needed: a stub keeps the
stored array (dataset page "SMPL model files", the chumpy problem).
"""

from __future__ import annotations

import copyreg
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

logger = logging.getLogger(__name__)


class BodyFileError(ValueError):
    """A body model file can not be used; the message says what is wrong, where, and what to do."""


class _ChumpyArray:
    """Stands for any chumpy class: its pickled state is the attribute dictionary, `x` the array of a plain one."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


_NUMPY_NAMES = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_NUMPY_MODULES = {
    "numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core", "numpy._core",
}  # fmt: skip
_SPARSE_NAMES = {
    name: getattr(sparse, name) for name in ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array")
}


# Of Python 2 (protocol 0) and 3; each only builds or names objects that are let through anyway.
_HARMLESS = {
    ("copyreg", "_reconstructor"): getattr(copyreg, "_reconstructor"),  # noqa: B009  private to the type stubs
    ("builtins", "object"): object,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}
_PYTHON2_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}


class _BodyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY_MODULES and name in _NUMPY_NAMES:
            return _NUMPY_NAMES[name]
        if module.split(".")[:2] == ["scipy", "sparse"] and name in _SPARSE_NAMES:
            return _SPARSE_NAMES[name]
        if module.split(".")[0] == "chumpy":
            return _ChumpyArray
        if (plain := (_PYTHON2_MODULES.get(module, module), name)) in _HARMLESS:
            return _HARMLESS[plain]
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        raise BodyFileError(f"asks for {module}.{name}, which a body model never needs; refused")


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """What Python 2 byte strings are pickled through by protocol 2."""
    if encoding != "latin1":
        raise BodyFileError(f"asks for the text encoding {encoding!r}; refused")
    return text.encode("latin1")


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an official .pkl file; sparse and chumpy arrays become plain ones.

    Raises BodyFileError naming the file for anything else than a dictionary of arrays:
    a refused global, a truncated file, a pickle of something else.
    """
    with path.open("rb") as file:
        try:
            content = _BodyUnpickler(file, encoding="latin1").load()
        except BodyFileError as error:
            raise BodyFileError(
                f"{path}: the pickle {error}. Use the file as it was downloaded from the model's own site."
            ) from error
        # A damaged pickle can fail in any opcode, with any of these.
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
                UnicodeDecodeError, MemoryError, OverflowError) as error:  # fmt: skip
            raise BodyFileError(
                f"{path}: not a readable pickle ({error}); it may be truncated: download it again."
            ) from error
    if not isinstance(content, dict):
        raise BodyFileError(f"{path}: holds a {type(content).__name__}, expected the dictionary of a body model.")
    return {str(key): plain for key, value in content.items() if (plain := _plain(path, str(key), value)) is not None}


def _plain(path: Path, key: str, value: Any) -> np.ndarray | None:
    """The numeric array behind a value, or None for entries that hold no numbers."""
    if isinstance(value, _ChumpyArray):
        if not isinstance(getattr(value, "state", None), dict) or "x" not in value.state:
            logger.warning("%s: %s is a chumpy expression without a stored array; left out", path, key)
            return None
        value = value.state["x"]
    if sparse.issparse(value):
        value = value.toarray()
    if isinstance(value, (np.ndarray, int, float)):
        array = np.asarray(value)
        return array if array.dtype.kind in "fiub" else None
    return None
