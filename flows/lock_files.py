"""Lock files of DVC that were cut off.

DVC writes `dvc.lock` in place, some tenths of a second long after every stage. Killed in that time it leaves
a part of the file, which it then refuses to read, and no stage runs any more. The entries before the cut are
good: with them alone DVC takes what is lost from its cache, or runs it again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

PATTERNS = ("dvc.lock", "tables/dvc.lock", "scales/*/dvc.lock", "scales/*/tables/dvc.lock")

_ENTRY = re.compile(r"^  \S.*$", re.MULTILINE)


def mend(project: Path, say: Callable[[str], None]) -> None:
    """Leave of each lock file what DVC can read, and say so where that is not all. Nobody may be running DVC."""
    for path in sorted(path for pattern in PATTERNS for path in project.glob(pattern)):
        text = path.read_text(errors="replace")
        if is_whole(text):
            continue
        kept = whole_part(text)
        say(
            f"{path.relative_to(project)} was cut off while DVC wrote it: {len(entries(kept))} stages are kept, "
            "the others are taken from the cache or run again"
        )
        if not kept:
            path.unlink()
            continue
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        aside.write_text(kept)
        aside.replace(path)


def is_whole(text: str) -> bool:
    """Whether DVC accepts this as a lock file."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import ParseError, parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, "dvc.lock"))
    except (ParseError, Invalid):
        return False
    return True


def whole_part(text: str) -> str:
    """The beginning of a lock file up to the end of its last good entry; empty when there is none."""
    for start in reversed([found.start() for found in _ENTRY.finditer(text)]):
        if is_whole(text[:start]):
            return text[:start]
    return ""


def entries(text: str) -> dict[str, object]:
    """The stages of a whole lock file, or of an empty one."""
    from dvc.utils.serialize import parse_yaml

    return dict(parse_yaml(text, "dvc.lock").get("stages", {}))


if __name__ == "__main__":
    from pipeline.layout import PROJECT

    mend(PROJECT, print)
