"""The published TensorFlow checkpoint of PGN (Engineering-Course/CIHP_PGN) as a state dict of `models.pgn.PGN`:
names, axis order, and nothing else. TensorFlow itself is not needed."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

# Layer names of the published TensorFlow checkpoint -> modules of PGN.
_LAYERS: tuple[tuple[str, str], ...] = (
    (r"conv1", "conv1.conv"),
    (r"bn_conv1", "conv1.norm"),
    (r"(parsing|edge)_branch([123])", r"\1.taps.\2"),
    (r"(parsing|edge)_branch", r"\1.join"),
    (r"(parsing|edge)_pp([1234])", r"\1.pyramid.levels.\2"),
    (r"(parsing|edge)_pp_conv", r"\1.pyramid.fuse"),
    (r"(parsing|edge)_fc", r"\1.logits"),
    (r"(parsing|edge)_fea", r"\1_feature"),
    (r"(parsing|edge)_remap", r"\1_remap"),
    (r"(parsing|edge)_rf", r"\1_refine.join"),
    (r"(parsing|edge)_rf_pp([1234])", r"\1_refine.pyramid.levels.\2"),
    (r"(parsing|edge)_rf_conv", r"\1_refine.pyramid.fuse"),
    (r"(parsing|edge)_rf_fc", r"\1_refine.logits"),
)

_VARIABLES = {
    "weights": "weight",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def pgn_from_tensorflow(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """State dict of `PGN` from the variables of the published TensorFlow checkpoint.

    Args:
        variables: checkpoint key, such as `res4b12_branch2a/weights` (a trailing `:0` is fine) ->
            array. Optimiser slots (`.../Momentum`) and the step counter are left out.

    Raises:
        ValueError: a variable that PGN does not have.
    """
    state: dict[str, Tensor] = {}
    for key, array in variables.items():
        layer, _, variable = key.removesuffix(":0").rpartition("/")
        if variable in ("Momentum", "global_step"):
            continue
        module = _module_of(layer)
        if module is None or variable not in _VARIABLES:
            raise ValueError(f"{key} is no variable of the published PGN")
        tensor = torch.from_numpy(np.array(array, dtype=np.float32))
        if variable == "weights":  # (height, width, in, out) -> (out, in, height, width)
            tensor = tensor.permute(3, 2, 0, 1).contiguous()
        state[f"{module}.{_VARIABLES[variable]}"] = tensor
        if variable == "moving_mean":
            state[f"{module}.num_batches_tracked"] = torch.tensor(0)
    return state


def _module_of(layer: str) -> str | None:
    if found := re.fullmatch(r"(res|bn)([2345])(a|b|c|b\d+)_(branch1|branch2[abc])", layer):
        kind, stage, block, branch = found.groups()
        # blocks are a, b, c in short stages and a, b1, b2, ... in long ones
        index = "abc".index(block) if len(block) == 1 else int(block[1:])
        return f"res{stage}.{index}.{branch}.{'conv' if kind == 'res' else 'norm'}"
    if found := re.fullmatch(r"fc1_edge_c([01234])_res([345])", layer):
        return f"edge_sides.{int(found[2]) - 3}.dilated.{found[1]}"
    for pattern, module in _LAYERS:
        if found := re.fullmatch(pattern, layer):
            name = found.expand(module)
            # levels and taps are numbered from 1 there, from 0 here
            return re.sub(r"(?<=\.)\d$", lambda digit: str(int(digit[0]) - 1), name)
    return None
