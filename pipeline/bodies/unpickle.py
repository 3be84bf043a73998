"""Reads the official SMPL and MANO pickles without running anything that is inside them.

Beside NumPy's arrays they hold sparse ones and chumpy expressions. Neither library builds them here, and chumpy need
not be installed: what they stored is enough (dataset page "SMPL model files", the chumpy problem).
"""

from __future__ import annotations

import copyreg
import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.pickles import UNREADABLE, ArraysOnly, Kept, load_arrays

logger = logging.getLogger(__name__)


class BodyFileError(ValueError):
    """A body model file can not be used; the message says what is wrong, where, and what to do."""


class _Chumpy(Kept):
    """Any chumpy class; its state is the dictionary of its attributes."""


class _PlainChumpy(_Chumpy):
    """`Ch`: `x` is the array (mattloper/chumpy chumpy/ch.py)."""


class _Select(_Chumpy):
    """Entries `idxs` of the flattened `a`, in `preferred_shape` (mattloper/chumpy chumpy/reordering.py).

    `shapedirs` of the released MANO is one over a plain `Ch` (adwardlee/RenderIH models/manolayer.py).
    """


class _Columns(Kept):
    build: ClassVar[Any] = sparse.csc_matrix


class _Rows(Kept):
    build: ClassVar[Any] = sparse.csr_matrix


_SPARSE = {"csc_matrix": _Columns, "csc_array": _Columns, "csr_matrix": _Rows, "csr_array": _Rows}
_CHUMPY = {"Ch": _PlainChumpy, "Select": _Select}
# Of Python 2 (protocol 0) and 3; each only builds or names objects that are let through anyway.
_HARMLESS = {
    ("copyreg", "_reconstructor"): getattr(copyreg, "_reconstructor"),  # noqa: B009  private to the type stubs
    ("builtins", "object"): object,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}
_PYTHON2_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}


class _BodyUnpickler(ArraysOnly):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[:2] == ["scipy", "sparse"] and name in _SPARSE:
            return _SPARSE[name]
        if module.split(".")[0] == "chumpy":
            return _CHUMPY.get(name, _Chumpy)
        if (plain := (_PYTHON2_MODULES.get(module, module), name)) in _HARMLESS:
            return _HARMLESS[plain]
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an official .pkl file; sparse and chumpy arrays become plain ones.

    Raises BodyFileError naming the file for anything else than a dictionary of arrays:
    a refused global, a truncated file, a pickle of something else.
    """
    try:
        content = load_arrays(path, _BodyUnpickler)
    except ValueError as error:
        raise BodyFileError(f"{error}; download it again from the model's own site, and leave it as it is.") from error
    if not isinstance(content, dict):
        raise BodyFileError(f"{path}: holds a {type(content).__name__}, expected the dictionary of a body model.")
    arrays = {}
    for key, value in content.items():
        try:
            array = _plain(value)
        except UNREADABLE as error:
            raise BodyFileError(
                f"{path}: {key} is damaged ({error}); download it again from the model's own site."
            ) from error
        if array is not None:
            arrays[str(key)] = array
        elif isinstance(value, _Chumpy):
            logger.warning("%s: %s is a chumpy expression without a stored array; left out", path, key)
    return arrays


def _plain(value: object) -> NDArray | None:
    """The numeric array behind a value, or None for entries that hold no numbers."""
    if isinstance(value, _Select):
        whole = _plain(value.state["a"])
        if whole is None:
            return None
        chosen = whole.ravel()[value.state["idxs"]]
        return chosen.reshape(value.state.get("preferred_shape", chosen.shape))
    if isinstance(value, _PlainChumpy):
        value = value.state["x"]
    if isinstance(value, _Columns | _Rows):
        parts = tuple(value.state[key] for key in ("data", "indices", "indptr"))
        matrix = value.build(parts, shape=value.state["_shape"])
        # Otherwise an index beyond the shape would be written to.
        matrix.check_format(full_check=True)
        value = matrix.toarray()
    if isinstance(value, (np.ndarray, int, float)):
        array = np.asarray(value)
        return array if array.dtype.kind in "fiub" else None
    return None
