"""Datasets by name. A dataset is one module of this package with a `DATASET`; it is found by that.

Each gives its source (licence page, files, layout check), reads its official layout into
records and writes a licence-free stand-in in the same layout (paper section 3.2).
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pipeline.datasets.base import Dataset
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile

__all__ = ["Dataset", "Expected", "Quarantine", "Source", "SourceFile", "get", "names"]


@cache
def _registry() -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        dataset = getattr(importlib.import_module(f"{__name__}.{module.name}"), "DATASET", None)
        if isinstance(dataset, Dataset):
            if dataset.name in found:
                raise RuntimeError(f"two modules of pipeline.datasets are named {dataset.name!r}")
            found[dataset.name] = dataset
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Names of all datasets, sorted."""
    return tuple(_registry())


def get(name: str) -> Dataset:
    """The dataset called `name`; ValueError listing the names when there is none."""
    try:
        return _registry()[name]
    except KeyError:
        raise ValueError(f"no dataset is called {name!r}; there are {', '.join(names())}") from None
