"""The `dvc` of this environment (setup.sh puts it into .venv/bin): DVC's own command, with one thing mended.

DVC 3.67 writes `dvc.lock` in place, some tenths of a second long after every stage. Killed in that time, or with the
disk full, it leaves a part of the file, which it then refuses to read, and no stage runs any more. Here what DVC
writes goes into a file beside it, which then takes its name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_aside(write: Callable[..., None]) -> Callable[..., None]:
    """`write(path, data, ...)`, but `path` keeps its old content until the new one is whole."""

    def write_whole(path: str | os.PathLike[str], *arguments: Any, **options: Any) -> None:
        path = Path(path)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(os.fspath(aside), *arguments, **options)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    return write_whole


def main(arguments: list[str] | None = None) -> int:
    """Run DVC with `arguments`, those of the command line by default; returns its exit status."""
    from dvc.cli import main as dvc
    from dvc.utils.serialize import _common, _yaml

    # Both ways to a YAML file: as a whole, and modified.
    _common._dump_data = _yaml._dump_data = write_aside(_common._dump_data)
    return dvc(arguments)


if __name__ == "__main__":
    sys.exit(main())
