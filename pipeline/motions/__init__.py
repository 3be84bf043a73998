"""Motions: AMASS files, and licence-free clips in AMASS's own layout."""

from pipeline.motions.amass import Motion, MotionFileError, read_amass, read_folder, write_amass
from pipeline.motions.sampling import sample_frames, sample_poses, split_by_subject

__all__ = [
    "Motion",
    "MotionFileError",
    "read_amass",
    "read_folder",
    "sample_frames",
    "sample_poses",
    "split_by_subject",
    "write_amass",
]
