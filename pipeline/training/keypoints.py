"""2D keypoints as a task of the training loop: alone, or beside cross-view completion
(CroCo-Human Sec. 4.2 "Keypoints supervision", App. C.1, Table 3); accuracy and pictures on held-out images.

Both see the very images that completion sees: the same pairs, order, crops and colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from models.completion import Completion
from models.croco import CroCo, CroCoEncoder
from models.heads.keypoints import KeypointHead, draw_heatmaps, heatmap_loss, peaks
from models.mae import MAEEncoder
from pipeline.loading.augment import jitter_and_normalize
from pipeline.loading.keypoints import NAMES, Keypoints
from pipeline.loading.pairs import PairBatch, PairPool
from pipeline.metrics.pck import pck
from pipeline.training.completion import Completing, completion_losses, plain
from pipeline.training.precision import Fusible
from pipeline.training.provenance import Value
from pipeline.training.team import WHOLE, Share

TRUE, PREDICTED = (40, 200, 60), (60, 110, 255)
"""Green and blue, as in Figure 10 of the paper."""
PICTURE_SIDE = 192
SHARES = (0.2, 0.05)
"""Of the longer side of the person's box, within which a keypoint counts as found: Penn Action's and a strict one."""


class KeypointNetwork(nn.Module):
    """An encoder with a keypoint head."""

    def __init__(self, encoder: CroCoEncoder | MAEEncoder, head: KeypointHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def heatmaps(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, 13, S, S) logits."""
        return self.head(self.encoder.encode(images))

    forward = heatmaps


class CompletionWithKeypoints(nn.Module):
    """CroCo with a keypoint head on the tokens of the reference, which is encoded once for both."""

    def __init__(self, croco: CroCo, head: KeypointHead) -> None:
        super().__init__()
        self.croco, self.head = croco, head

    def heatmaps(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, 13, S, S) logits."""
        return self.head(self.croco.encode(images))

    def forward(
        self, target: Tensor, reference: Tensor, hidden: Tensor, visible: Tensor | None = None
    ) -> tuple[Completion, Tensor]:
        """The completion of the target and the logits (B, 13, S, S) of the reference's heat-maps."""
        tokens = self.croco.encode(reference)
        return self.croco.complete(target, tokens, hidden, visible), self.head(tokens)


LearnsKeypoints = KeypointNetwork | CompletionWithKeypoints


def new_head(encoder: CroCoEncoder | MAEEncoder, seed: int) -> KeypointHead:
    """A head for the tokens of `encoder`, with weights that depend on `seed` alone."""
    head = KeypointHead(encoder.width, encoder.patch_size, encoder.grid[0], len(NAMES))
    head.reset_parameters(torch.Generator().manual_seed(seed))
    return head


class SingleKeypoints:
    """Keypoints of both images of each pair, each image on its own."""

    def __init__(self, network: KeypointNetwork, pool: PairPool, keypoints: Keypoints, how: Completing) -> None:
        self._network, self._pool, self._keypoints, self._how = network, pool, keypoints, how
        self._see = Fusible(jitter_and_normalize)
        self.fusible = (self._see,)

    def batch(self, step: int, share: Share = WHOLE) -> tuple[PairBatch, Tensor]:
        pairs = self._pool.batch(step, self._how.batch, share.of(self._how.batch))
        return pairs, self._keypoints.of(torch.cat([pairs.target_cut, pairs.reference_cut]))

    def ids(self, batch: tuple[PairBatch, Tensor]) -> Sequence[str]:
        return self._pool.ids(batch[0])

    def losses(self, batch: tuple[PairBatch, Tensor]) -> dict[str, Tensor]:
        pairs, keypoints = batch[0].to(self._how.device), batch[1].to(self._how.device)
        images = torch.cat([pairs.target, pairs.reference])
        images = self._see(images, torch.cat([pairs.target_colours, pairs.reference_colours]))
        return {"loss": heatmap_loss(self._network(images), keypoints)}


class CrossCompletionWithKeypoints:
    """Completion of the target plus `weight` times the keypoints of the reference, which is seen whole."""

    def __init__(
        self, network: CompletionWithKeypoints, pool: PairPool, keypoints: Keypoints, how: Completing, weight: float
    ) -> None:
        self._network, self._pool, self._keypoints, self._how, self._weight = network, pool, keypoints, how, weight
        self._see, self._compare = Fusible(jitter_and_normalize), Fusible(completion_losses)
        self.fusible = (self._see, self._compare)

    def batch(self, step: int, share: Share = WHOLE) -> tuple[PairBatch, Tensor]:
        pairs = self._pool.batch(step, self._how.batch, share.of(self._how.batch))
        return pairs, self._keypoints.of(pairs.reference_cut)

    def ids(self, batch: tuple[PairBatch, Tensor]) -> Sequence[str]:
        return self._pool.ids(batch[0])

    def losses(self, batch: tuple[PairBatch, Tensor]) -> dict[str, Tensor]:
        """`loss`, its two parts `completion` and `keypoints`, and those of completion."""
        pairs, keypoints = batch[0].to(self._how.device), batch[1].to(self._how.device)
        target = self._see(pairs.target, pairs.target_colours)
        reference = self._see(pairs.reference, pairs.reference_colours)
        completion, logits = self._network(target, reference, pairs.hidden, pairs.visible)
        losses = self._compare(completion.prediction, target, pairs, self._how.normalize, self._how.weights)
        of_completion, of_keypoints = losses["loss"], heatmap_loss(logits, keypoints)
        return losses | {
            "loss": of_completion + self._weight * of_keypoints,
            "completion": of_completion.detach(),
            "keypoints": of_keypoints.detach(),
        }


@torch.no_grad()
def predict(network: LearnsKeypoints, images: Tensor, chunk: int = 64) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 13, S, S) logits of the heat-maps, images unchanged in colour; on the CPU both."""
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    logits = torch.cat([network.heatmaps(plain(part.to(device))).cpu() for part in images.split(chunk)])
    network.train(was_training)
    return logits


def validate_keypoints(
    network: LearnsKeypoints, pairs: PairBatch | None, keypoints: Keypoints, longer_side: float
) -> dict[str, Value]:
    """Heat-map loss and PCK of the highest pixel on the images of held-out pairs, each image once; empty without pairs.

    PCK@0.2 is the share of the annotated keypoints within the image whose predicted pixel lies within 0.2 times the
    longer side of the person's box; likewise PCK@0.05. Beside each stands that of an answer which does not look:
    the mean true place of each keypoint over these very images.

    Args:
        longer_side: of the person's box, px of the input; crops are cut in proportion to it.
    """
    if pairs is None:
        return {}
    cuts, images = torch.cat([pairs.target_cut, pairs.reference_cut]), torch.cat([pairs.target, pairs.reference])
    _, first = np.unique(cuts.numpy(), axis=0, return_index=True)
    once = torch.from_numpy(first)
    truth = keypoints.of(cuts[once])
    logits = predict(network, images[once])
    known = truth[..., 2:] > 0
    middle = (truth[..., :2] * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)
    num_points = int(known.sum())
    values = {
        "heldout_keypoint_loss": Value(float(heatmap_loss(logits, truth)), "binary cross-entropy", len(once)),
    }
    if not num_points:
        return values
    for share in SHARES:
        for name, found in (("", peaks(logits)), ("_of_mean_place", middle.expand(len(once), -1, -1))):
            value = float(pck(found, truth, share * longer_side))
            values[f"heldout_pck_{round(100 * share):02d}{name}"] = Value(value, "fraction", num_points)
    return values


def draw_keypoints(network: LearnsKeypoints, images: Tensor, truth: Tensor) -> list[NDArray[np.uint8]]:
    """Of each image (S, S, 3): the image, the true heat-maps, the predicted ones, and on the image the true keypoints
    in green with the predicted ones in blue, joined where both are (Figure 10 of the paper)."""
    logits = predict(network, images)
    size = images.shape[1]
    targets = draw_heatmaps(truth[..., :2], size) * (truth[..., 2, None, None] > 0)
    found, rows = peaks(logits), []
    for image, target, heat, true, places in zip(images, targets, logits.sigmoid(), truth, found, strict=True):
        picture = Image.fromarray(image.numpy()).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
        panels = [np.asarray(picture), _coloured(target), _coloured(heat), _marked(picture, true, places, size)]
        rows.append(np.concatenate(panels, axis=1))
    return rows


def _coloured(heatmaps: Tensor) -> NDArray[np.uint8]:
    """(13, S, S) in [0, 1] -> an RGB picture, one hue per keypoint, the brightest on top."""
    hues = np.linspace(0, 255, len(NAMES), endpoint=False).astype(np.uint8)
    palette = Image.fromarray(np.stack([hues, np.full_like(hues, 200), np.full_like(hues, 255)], axis=-1)[None], "HSV")
    colours = torch.from_numpy(np.array(palette.convert("RGB"))[0]).float()
    mixed = (heatmaps[..., None] * colours[:, None, None]).amax(dim=0)
    picture = Image.fromarray(mixed.round().to(torch.uint8).numpy())
    return np.asarray(picture.resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BILINEAR))


def _marked(picture: Image.Image, truth: Tensor, places: Tensor, size: int) -> NDArray[np.uint8]:
    drawn, zoom = picture.copy(), PICTURE_SIDE / size
    pen = ImageDraw.Draw(drawn)
    for (x, y, confidence), (u, v) in zip(truth.tolist(), places.tolist(), strict=True):
        if confidence > 0:
            pen.line([(x * zoom, y * zoom), (u * zoom, v * zoom)], fill=PREDICTED, width=1)
            _dot(pen, x * zoom, y * zoom, TRUE)
            _dot(pen, u * zoom, v * zoom, PREDICTED)
    return np.asarray(drawn)


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int], radius: float = 3) -> None:
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour, outline=(255, 255, 255))
