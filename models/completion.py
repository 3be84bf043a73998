"""The masked-completion objective shared by CroCo and MAE: the network's output, the loss on hidden
patches (CroCo-Human Sec. 3.1, eq. 2, and its normalised form) and the completed image to look at."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.patches import patchify, unpatchify


class Completion(NamedTuple):
    """Output of CroCo and MAE.

    Attributes:
        prediction: (B, N, 3 p^2) predicted patches in raster order, vectors as in `patchify`.
        hidden: (B, N) bool, the mask that was applied, True = hidden.
    """

    prediction: Tensor
    hidden: Tensor


def patch_errors(prediction: Tensor, target_image: Tensor, normalize: bool = True) -> Tensor:
    """Mean squared error of each predicted patch.

    Args:
        prediction: (B, N, 3 p^2).
        target_image: (B, 3, H, W), the image as it was given to the encoder.
        normalize: compare with patches of zero mean and unit (unbiased) deviation, as the released
            CroCo weights do, instead of raw values (equation 2 of CroCo-Human).

    Returns:
        (B, N) float32.

    Raises:
        ValueError: prediction and image do not have the same number of patches.
    """
    target = _target_patches(prediction, target_image)
    if normalize:
        # Layer norm divides by the biased deviation; in one pass it is several times as fast as one thing at a time.
        share = 1 - 1 / target.shape[-1]
        target = F.layer_norm(target, target.shape[-1:], eps=1e-6 * share) * share**0.5
    return (prediction.float() - target).square().mean(dim=-1)


class PatchWeights(NamedTuple):
    """How much the error of a patch of the target counts in the loss, by what it is."""

    human: float = 1.0
    """Hidden, and shows the person."""
    background: float = 1.0
    """Hidden, and does not."""
    visible: float = 0.0


def completion_loss(
    prediction: Tensor,
    target_image: Tensor,
    hidden: Tensor,
    normalize: bool = True,
    weights: PatchWeights | None = None,
) -> Tensor:
    """Mean of `patch_errors` over the hidden patches of the whole batch, or by weight; a scalar.

    Equation (2) of the paper sums over all patches: give an all-True `hidden` for that, or visible patches a weight.

    Raises:
        ValueError: shapes that do not fit.
    """
    errors = patch_errors(prediction, target_image, normalize)
    if hidden.shape != errors.shape:
        raise ValueError(f"hidden is {tuple(hidden.shape)}, the prediction {tuple(errors.shape)}")
    return mean_error(errors, hidden, weights)


def masked_mean(errors: Tensor, where: Tensor) -> Tensor:
    """Mean of `errors` (B, N) over the patches of `where` (B, N) bool, a scalar; 0 where there are none."""
    weight = where.to(errors.dtype)
    return (errors * weight).sum() / weight.sum().clamp_min(1)


def mean_error(
    errors: Tensor, hidden: Tensor, weights: PatchWeights | None = None, human: Tensor | None = None
) -> Tensor:
    """Mean of `errors` (B, N) over the hidden patches; by weight, their weighted sum over the number of hidden patches,
    or of all where visible ones count. A scalar.

    With the weights by default that is the plain mean, with 1 for all of them equation (2) of CroCo-Human.

    Args:
        hidden, human: (B, N) bool. A row in which no patch shows a person, as without a silhouette, counts as if all
            did, and so does every row without `human`.
    """
    if weights is None:
        return masked_mean(errors, hidden)
    of_hidden: Tensor | float = weights.human
    if human is not None:
        of_hidden = torch.where(human | ~human.any(dim=1, keepdim=True), weights.human, weights.background)
    weight = torch.where(hidden, of_hidden, weights.visible).to(errors.dtype)
    counted = hidden.sum() if weights.visible == 0 else hidden.numel()
    return (errors * weight).sum() / counted


def completed_image(completion: Completion, target_image: Tensor, patch_size: int, normalize: bool = True) -> Tensor:
    """The target with its hidden patches replaced by the prediction, (B, 3, H, W), still normalised.

    Normalised predictions get the mean and deviation of the true patches, as in CroCo's own demo.
    """
    truth = _target_patches(completion.prediction, target_image)
    patches = completion.prediction.float()
    if normalize:
        variance, mean = torch.var_mean(truth, dim=-1, keepdim=True)
        patches = patches * torch.sqrt(variance + 1e-6) + mean
    patches = torch.where(completion.hidden[:, :, None], patches, truth)
    height, width = target_image.shape[2:]
    return unpatchify(patches, patch_size, (height // patch_size, width // patch_size))


def _target_patches(prediction: Tensor, target_image: Tensor) -> Tensor:
    side = round((prediction.shape[-1] / 3) ** 0.5)
    patches = patchify(target_image.float(), side)
    if patches.shape != prediction.shape:
        raise ValueError(
            f"the prediction is {tuple(prediction.shape)}, but the image {tuple(target_image.shape)} "
            f"has patches {tuple(patches.shape)}"
        )
    return patches
