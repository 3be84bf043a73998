"""What a user may choose about finding persons in videos."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.run_spec import Section


class VideoSettings(Section):
    """The defaults suit everyday footage."""

    min_height: Annotated[float, Field(ge=0.05, le=1)] = 0.25
    """Smallest person, as a share of the frame's height; half of it takes four times as long."""
    min_seconds: Annotated[float, Field(gt=0)] = 0.8
    """Shortest track that is kept."""
    max_gap_s: Annotated[float, Field(ge=0)] = 2.5
    """Longest time within a track that the person is not seen; boxes in it are interpolated."""
