"""Which code computed something: what was begun by other code is not gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pipeline.layout import PROJECT


def hashes(places: Iterable[str]) -> dict[str, str]:
    """Hash of each module by its path from the project root; of a folder, of all modules in it."""
    paths = [PROJECT / place for place in places]
    modules = [path for place in paths for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    return {
        path.relative_to(PROJECT).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        for path in modules
    }
