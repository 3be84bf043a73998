"""Notes of one stage go into `dvc.lock` without all others being written anew.

DVC reads the whole file to change one stage, in the way that keeps comments, and writes it all again: 15 seconds after
every stage of `tables/dvc.yaml`, which has hundreds. Here the lines of the other stages stay as they are, which gives
the very same file (tests/flows/test_dvc_lock_file.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from dvc.utils.serialize import _yaml

Modify = Callable[..., AbstractContextManager[dict[str, Any]]]
"""`modify(path, parse, dump, fs=None)`: what a file says, to be changed inside the `with`, and written after it."""

_KEYS = ["schema", "stages"]
_BEGINNING = "schema: '2.0'\nstages:\n"
_STAGE = re.compile(r"^  (?=[^ ])", re.MULTILINE)


def stage_by_stage(modify: Modify) -> Modify:
    """DVC's function that changes a YAML file, for all but lock files as DVC writes them: those are changed as said."""

    @contextmanager
    def modify_stages(
        path: str, parse: Callable[..., Any], dump: Callable[[Any, TextIO], None], **options: Any
    ) -> Iterator[dict[str, Any]]:
        file = Path(path)
        text = file.read_text("utf-8") if file.name == "dvc.lock" and file.is_file() else ""
        content = _yaml.parse_yaml(text, path) if text.startswith(_BEGINNING) and text.endswith("\n") else {}
        written = dict(content.get("stages") or {})
        lines = _STAGE.split(text[len(_BEGINNING) :])[1:]
        if list(content) != _KEYS or len(lines) != len(written):
            with modify(path, parse, dump, **options) as data:
                yield data
            return
        lines_of = dict(zip(written, lines, strict=True))
        yield content

        def write(data: dict[str, Any], stream: TextIO) -> None:
            if list(data) != _KEYS:
                dump(data, stream)
                return
            stream.write(_BEGINNING)
            for name, stage in data["stages"].items():
                # DVC replaces what it says of a stage, it does not change it in place.
                same = stage is written.get(name)
                stream.write(f"  {lines_of[name]}" if same else _lines(name, stage, dump))

        _yaml._dump_data(path, content, write, **options)

    return modify_stages


def _lines(name: str, stage: Any, dump: Callable[[Any, TextIO], None]) -> str:
    stream = StringIO()
    dump({"stages": {name: stage}}, stream)
    return stream.getvalue().removeprefix("stages:\n")
