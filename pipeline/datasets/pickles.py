"""Reading the pickles some datasets ship, without letting them run code.

A pickle may name any callable to build its objects with. Ours are data: plain Python
containers and NumPy arrays, so exactly the few names NumPy's own pickles use are admitted.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

_NUMPY = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
# NumPy 2 renamed `core`; files hold either name.
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What protocol 2 spells bytes with; only the encoding NumPy uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refuses to encode text as {encoding!r}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if module in _NUMPY_MODULES and name in _NUMPY:
            return _NUMPY[name]
        raise pickle.UnpicklingError(f"refuses {module}.{name}: only NumPy arrays and plain containers are read")


def load_arrays(path: Path) -> object:
    """The content of a pickle of arrays, lists, dicts, numbers and text (Python 2 or 3).

    Raises ValueError naming the file when it is damaged or asks for anything else.
    """
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError) as error:
        raise ValueError(f"{path}: not a readable pickle of arrays ({error})") from error
