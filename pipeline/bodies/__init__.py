"""Bodies and hands: the open ones made from Anny, and the licensed SMPL and MANO, behind one interface."""

from typing import TYPE_CHECKING, Any

from pipeline.bodies.anatomy import SMPL_FLIP, SMPL_JOINT_NAMES, SMPL_PARENTS, flip_pose
from pipeline.bodies.unpickle import BodyFileError

if TYPE_CHECKING:
    from pipeline.bodies.model import BodyModel, BodyOutput, UvMap, load

__all__ = [
    "SMPL_FLIP",
    "SMPL_JOINT_NAMES",
    "SMPL_PARENTS",
    "BodyFileError",
    "BodyModel",
    "BodyOutput",
    "UvMap",
    "flip_pose",
    "load",
]


def __getattr__(name: str) -> Any:
    """The model when it is first asked for: it loads torch, which takes seconds, and readers of data sets need none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.bodies import model

    return getattr(model, name)
