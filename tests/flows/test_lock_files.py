"""A lock file that was cut off at any place is one that DVC reads again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.lock_files import entries, is_whole, mend, whole_part
from pipeline.layout import PROJECT

WHOLE = (PROJECT / "dvc.lock").read_text()
STARTS = [WHOLE.index(f"\n  {name}:") + 1 for name in entries(WHOLE)]
SHORT = WHOLE[: STARTS[4]]
"""Four stages: enough to be cut anywhere, and quick to read."""


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SHORT)))
def test_what_is_left_of_a_file_cut_anywhere_is_good(cut: int) -> None:
    left = SHORT[:cut]
    kept = left if is_whole(left) else whole_part(left)
    if kept:
        assert is_whole(kept)
    finished = [name for name, end in zip(entries(SHORT), STARTS[1:5], strict=True) if end <= cut]
    assert list(entries(kept))[: len(finished)] == finished
    assert all(entries(kept)[name] == entries(SHORT)[name] for name in finished)


def test_each_lock_file_that_was_cut_off_is_mended_and_named(tmp_path: Path) -> None:
    for folder in (".", "tables", "scales/gpu"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "dvc.lock").write_text(SHORT[: SHORT.index("- path:", STARTS[2]) + 7])
    (tmp_path / "tables/dvc.lock").write_text(SHORT)
    (tmp_path / "scales/gpu/dvc.lock").write_text("")
    said: list[str] = []
    mend(tmp_path, said.append)
    assert len(said) == 2
    assert said[0].startswith("dvc.lock was cut off while DVC wrote it: 2 stages are kept")
    assert (tmp_path / "dvc.lock").read_text() == WHOLE[: STARTS[2]]
    assert (tmp_path / "tables/dvc.lock").read_text() == SHORT
    assert not (tmp_path / "scales/gpu/dvc.lock").exists()
    mend(tmp_path, said.append)
    assert len(said) == 2
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"dvc.lock"}
