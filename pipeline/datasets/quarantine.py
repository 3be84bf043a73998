"""Bad entries of a dataset: left out of the records, but counted and listed with the reason.

A dataset of millions of files always holds some that are damaged; one of them must neither
stop a run nor vanish from its account.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One thing left out, and why."""

    file: str
    """Relative to the dataset's folder; which part of it behind a `#`, where there are several."""
    reason: str
    """The same words for every fault of one kind, whichever record has it: reports count by them."""
    records: int = 1
    """How many records it would have given, 1 when unknown."""


@dataclass
class Quarantine:
    """Collects what a reader leaves out."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, file: str, reason: str, records: int = 1) -> None:
        self.entries.append(Entry(file, reason, records))

    def __len__(self) -> int:
        return len(self.entries)

    def summary(self, start: int = 0) -> str:
        """`3x no box; 1x not a JPEG` for the entries from `start` on, most frequent first."""
        counts = Counter(entry.reason for entry in self.entries[start:])
        return "; ".join(f"{count}x {reason}" for reason, count in counts.most_common(8))

    def write(self, path: Path) -> None:
        """Write the list as JSON, aside and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "count": len(self.entries),
            "records": sum(entry.records for entry in self.entries),
            "entries": [{"file": e.file, "reason": e.reason, "records": e.records} for e in self.entries],
        }
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(content, indent=1) + "\n")
        aside.replace(path)
