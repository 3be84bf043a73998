"""Where a dataset comes from: who grants access, which files, where they go, is the layout right.

One declarative `Source` per dataset serves `make doctor`, the download flow and the
message a user sees when a folder does not look as expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.datasets.base import folders

Access = Literal["anonymous", "form", "generated"]


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file to obtain, as its distributor names it."""

    name: str
    url: str | None = None
    """Address of the file that answers without an account; None = the user's to fetch, as `Source.how` says."""
    unpack_to: str | None = None
    """Folder below `data/raw/<dataset>` the archive is unpacked in; None = not an archive."""
    megabytes: int | None = None
    """Expected size, None = not known."""
    md5: str | None = None
    """Of the whole file, as several who have fetched it say; None = nobody does."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A part of the official layout: at least one path must match one of the globs."""

    patterns: tuple[str, ...]
    """Globs relative to the dataset's folder, where `**/` at the start enters links, too.

    More than one where archives unpack differently.
    """
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a user gets a dataset and how its folder must look."""

    homepage: str
    licence: str
    access: Access
    how: str
    files: tuple[SourceFile, ...]
    layout: tuple[Expected, ...]

    def check(self, root: Path) -> list[str]:
        """Problems of the layout below `root`, one sentence each; empty = as expected.

        Looks for one match of every expected pattern, so it is quick on a full dataset;
        damage inside files is found, counted and listed by indexing.
        """
        if not root.is_dir():
            return [f"{root}: no such folder"]
        return [
            f"{root}: found no {' or '.join(part.patterns)} ({part.meaning})"
            for part in self.layout
            if not any(next(_matches(root, pattern), None) for pattern in part.patterns)
        ]

    def require(self, root: Path, dataset: str) -> None:
        """Raise ValueError listing every problem of the layout and where to read about it."""
        if problems := self.check(root):
            raise ValueError(
                f"{dataset}: the folder does not have the official layout:\n  "
                + "\n  ".join(problems)
                + f"\nHow to get it: {self.homepage} and data/raw/{dataset}/SOURCE.md"
            )


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    name = pattern.removeprefix("**/")
    for folder in [root] if name == pattern else folders(root):
        yield from folder.glob(name)
