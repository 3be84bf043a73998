"""Iterative error feedback regressor of body or hand parameters (CroCo-Human Sec. 3.4 and 4.1, after SPIN):
a pooled image feature becomes joint rotations, shape and a weak-perspective camera."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.rotations import rotation_6d_to_matrix

NUM_BETAS = 10


class BodyParameters(NamedTuple):
    """Parameters of SMPL (J = 24) or MANO (J = 16).

    Attributes:
        rotations: (B, J, 3, 3) joint rotations relative to the parent, root first.
        betas: (B, 10) shape coefficients.
        camera: (B, 3) weak perspective (scale, x, y): image = scale * (X + x, Y + y), crop in [-1, 1].
        rotations_6d: (B, J, 6) what `rotations` were made from.
    """

    rotations: Tensor
    betas: Tensor
    camera: Tensor
    rotations_6d: Tensor


class IterativeRegressor(nn.Module):
    """Adds corrections to a running estimate, with the same weights in every iteration.

    Starts from identity rotations, mean shape and camera (0.9, 0, 0) unless told otherwise; SPIN
    starts from the arrays `pose`, `shape` and `cam` of its `smpl_mean_params.npz`.

    Args:
        feature_width: channels of the pooled feature.
        num_joints: 24 for SMPL, 16 for MANO.
        num_iterations: corrections.
        hidden_width: width of the two hidden layers, which have no activation between them upstream.
        dropout: after each hidden layer.
        start_pose: (6 * num_joints,) in the layout of `models.rotations.rotation_6d_to_matrix`.
        start_betas: (10,).
        start_camera: (3,).

    Raises:
        ValueError: a start of the wrong length.
    """

    start: Tensor

    def __init__(
        self,
        feature_width: int,
        num_joints: int = 24,
        num_iterations: int = 3,
        hidden_width: int = 1024,
        dropout: float = 0.5,
        start_pose: Tensor | None = None,
        start_betas: Tensor | None = None,
        start_camera: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.feature_width, self.num_joints, self.num_iterations = feature_width, num_joints, num_iterations
        self.sizes = [6 * num_joints, NUM_BETAS, 3]
        identity = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).repeat(num_joints)
        start = [
            identity if start_pose is None else start_pose,
            torch.zeros(NUM_BETAS) if start_betas is None else start_betas,
            torch.tensor([0.9, 0.0, 0.0]) if start_camera is None else start_camera,
        ]
        for name, value, size in zip(("start_pose", "start_betas", "start_camera"), start, self.sizes, strict=True):
            if value.numel() != size:
                raise ValueError(f"{name} must have {size} numbers, not shape {tuple(value.shape)}")
        self.register_buffer("start", torch.cat([value.detach().float().flatten() for value in start]))
        self.fc1 = nn.Linear(feature_width + sum(self.sizes), hidden_width)
        self.fc2 = nn.Linear(hidden_width, hidden_width)
        self.dropout = nn.Dropout(dropout)
        self.decpose, self.decshape, self.deccam = (nn.Linear(hidden_width, size) for size in self.sizes)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: hidden layers as `nn.Linear`, outputs Xavier uniform with gain 0.01."""
        for hidden in (self.fc1, self.fc2):
            bound = hidden.in_features**-0.5
            nn.init.uniform_(hidden.weight, -bound, bound, generator=generator)
            nn.init.uniform_(hidden.bias, -bound, bound, generator=generator)
        for output in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(output.weight, gain=0.01, generator=generator)
            nn.init.zeros_(output.bias)

    def forward(self, feature: Tensor) -> BodyParameters:
        """The estimate after the last iteration.

        Args:
            feature: (B, feature_width), such as the mean of the patch tokens.

        Raises:
            ValueError: a feature of another shape.
        """
        if feature.ndim != 2 or feature.shape[1] != self.feature_width:
            raise ValueError(f"expected a feature of shape (B, {self.feature_width}), not {tuple(feature.shape)}")
        estimate = self.start.expand(len(feature), -1)
        for _ in range(self.num_iterations):
            x = self.dropout(self.fc1(torch.cat([feature, estimate.to(feature.dtype)], dim=1)))
            x = self.dropout(self.fc2(x))
            estimate = estimate + torch.cat([self.decpose(x), self.decshape(x), self.deccam(x)], dim=1)
        return self.parameters_of(estimate)

    def parameters_of(self, estimate: Tensor) -> BodyParameters:
        """Of an estimate (B, 6 J + 13), such as `start`: pose, betas, camera."""
        pose, betas, camera = estimate.split(self.sizes, dim=1)
        rotations_6d = pose.reshape(-1, self.num_joints, 6)
        return BodyParameters(rotation_6d_to_matrix(rotations_6d.float()), betas, camera, rotations_6d)
