"""What DVC spends after each stage to note it; `pytest -n 0 -s tests/benchmarks/test_lock_file_speed.py` prints it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.utils.serialize import _yaml

from flows.dvc_lock_file import stage_by_stage
from pipeline.layout import PROJECT

STAGES = 60
"""Of the hundreds that tables/dvc.lock has: both ways take as much more as there are more."""


def seconds(modify: Callable[..., Any], path: Path, text: str) -> float:
    """Of the processor, to note one stage in a lock file that says `text`."""
    path.write_text(text)
    begun = time.process_time()
    with modify(str(path), _yaml.parse_yaml_for_update, _yaml._dump) as content:
        content["stages"]["one_more"] = {"cmd": "echo"}
    return time.process_time() - begun


def test_noting_a_stage_takes_a_third_of_what_it_takes_dvc(tmp_path: Path) -> None:
    whole = (PROJECT / "tables" / "dvc.lock").read_text()
    ends = [match.start() for match in re.finditer(r"^  (?=\S)", whole, re.MULTILINE)]
    text = whole[: ends[STAGES]]
    theirs, ours = (
        min(seconds(modify, tmp_path / "dvc.lock", text) for _ in range(2))
        for modify in (_yaml._modify_data, stage_by_stage(_yaml._modify_data))
    )
    print(f"{STAGES} of {len(ends)} stages: DVC {theirs:.2f} s, stage by stage {ours:.2f} s, 1 : {theirs / ours:.1f}")
    assert ours < theirs / 3
