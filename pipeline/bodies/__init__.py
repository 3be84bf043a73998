"""Bodies and hands: the open ones made from Anny, and the licensed SMPL and MANO, behind one interface."""

from pipeline.bodies.anatomy import SMPL_FLIP, SMPL_JOINT_NAMES, SMPL_PARENTS, flip_pose
from pipeline.bodies.model import BodyModel, BodyOutput, UvMap, load
from pipeline.bodies.unpickle import BodyFileError

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
