"""PGN, the part grouping network for human parsing: an image becomes 20 part logits (CIHP classes) and
person edges, from which the pipeline takes silhouettes (CroCo-Human Sec. 3.1 and 4.1 use it for HUMBI).
The published network, and narrower or shallower ones that train in a minute on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.tensorflow_like import SameConv2d, max_pool_same, mean_pool_same, resize_bilinear

# Mean colour removed from the input, in the channel order of the input: blue, green, red.
BGR_MEAN = (125.0, 114.4, 107.9)

CLASSES = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks",
    "pants", "torso-skin", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg",
    "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip

# Windows of the pyramid pooling, in pixels of the map at 1/8 of the input.
PYRAMID_WINDOWS = (60, 30, 20, 10)

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@dataclass(frozen=True)
class Parsing:
    """Output of PGN; all maps are logits at 1/8 of the input, sides rounded up.

    Attributes:
        parsing: two (B, classes, h, w): first stage, refined.
        edge: five (B, 1, h, w): first stage, refined, and the side outputs of stages 5, 4, 3.
    """

    parsing: list[Tensor]
    edge: list[Tensor]


class PGN(nn.Module):
    """ResNet at stride 8 with a parsing branch, an edge branch and a joint refinement of both.

    Args:
        num_classes: parts, background included.
        width: multiplies every channel count; 1.0 is the published network.
        depths: residual blocks in stages 2 to 5; (3, 4, 23, 3), ResNet-101, is published.
        head_width: multiplies the channel counts behind the ResNet instead of `width`.
        windows: sides of the means of pyramid pooling, in cells of 1/8 of the input; published for
            inputs of about 512 px. Windows larger than the map all give the one mean.
        dropout: share of channel values dropped before each logit in training.

    Raises:
        ValueError: a width that leaves no channel, or not four positive depths.
    """

    def __init__(
        self,
        num_classes: int = 20,
        width: float = 1.0,
        depths: Sequence[int] = (3, 4, 23, 3),
        head_width: float | None = None,
        windows: Sequence[int] = PYRAMID_WINDOWS,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        head_width = width if head_width is None else head_width
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"depths must be four positive numbers of blocks, not {tuple(depths)}")
        if 64 * width < 1 or 128 * head_width < 1:
            raise ValueError(f"widths {width} and {head_width} leave a layer without channels")
        self.config: dict[str, Any] = dict(
            num_classes=num_classes,
            width=width,
            depths=[int(depth) for depth in depths],
            head_width=head_width,
            windows=[int(window) for window in windows],
            dropout=dropout,
        )

        def channels(published: int) -> int:
            return max(round(published * width), 1)

        def head(published: int) -> int:
            return max(round(published * head_width), 1)

        self.num_classes = num_classes
        self.conv1 = _ConvNorm(3, channels(64), kernel=7, stride=2)
        self.res2 = _stage(channels(64), channels(64), channels(256), depths[0])
        self.res3 = _stage(channels(256), channels(128), channels(512), depths[1], stride=2)
        self.res4 = _stage(channels(512), channels(256), channels(1024), depths[2], dilation=2)
        self.res5 = _stage(channels(1024), channels(512), channels(2048), depths[3], dilation=4)
        taps = [channels(512), channels(1024), channels(2048)]
        inner = head(512)
        self.parsing = _Branch(taps, head(512), inner, num_classes, windows, dropout)
        self.edge = _Branch(taps, head(256), inner, 1, windows, dropout)
        # Side outputs on the edge taps of stages 3, 4, 5.
        self.edge_sides = nn.ModuleList(_SideOutput(head(256)) for _ in taps)
        self.parsing_feature = SameConv2d(inner, head(256), 3)
        self.parsing_remap = SameConv2d(num_classes, head(128), 1)
        self.edge_feature = SameConv2d(inner, head(256), 3)
        self.edge_remap = SameConv2d(1, head(128), 1)
        joint = 2 * (head(256) + head(128))
        self.parsing_refine = _Refinement(joint, inner, num_classes, windows, dropout)
        self.edge_refine = _Refinement(joint, inner, 1, windows, dropout)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: He normal kernels, zero bias, neutral batch norm."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Parsing:
        """Parse images of any size.

        Args:
            image: (B, 3, H, W) float, BGR, 0..255 with `BGR_MEAN` removed; see `preprocess`.

        Raises:
            ValueError: not (B, 3, H, W).
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"PGN takes images of shape (B, 3, H, W), not {tuple(image.shape)}")
        x = max_pool_same(self.conv1(image).relu(), kernel=3, stride=2)
        tap3 = self.res3(self.res2(x))
        tap4 = self.res4(tap3)
        tap5 = self.res5(tap4)
        _, parsing_context, parsing = self.parsing([tap3, tap4, tap5])
        edge_taps, edge_context, edge = self.edge([tap3, tap4, tap5])
        sides = [side(tap) for tap, side in zip(edge_taps, self.edge_sides, strict=True)]
        of_parsing = [self.parsing_feature(parsing_context).relu(), self.parsing_remap(parsing).relu()]
        of_edge = [self.edge_feature(edge_context).relu(), self.edge_remap(edge).relu()]
        refined_parsing = self.parsing_refine(torch.cat([*of_parsing, *of_edge], dim=1))
        refined_edge = self.edge_refine(torch.cat([*of_edge, *of_parsing], dim=1))
        return Parsing([parsing, refined_parsing], [edge, refined_edge, *reversed(sides)])


def preprocess(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float BGR without `BGR_MEAN`: the input of PGN.

    Raises:
        ValueError: not a (B, H, W, 3) uint8 tensor.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"expected (B, H, W, 3) uint8 RGB images, not {tuple(images.shape)} {images.dtype}")
    mean = torch.tensor(BGR_MEAN, device=images.device).view(3, 1, 1)
    return images.permute(0, 3, 1, 2).flip(1).float() - mean


@torch.no_grad()
def mean_logits(model: PGN, images: Tensor, scales: Sequence[float] = SCALES, flip: bool = True) -> Tensor:
    """Logits of images, by the published test procedure.

    The logits of both parsing stages are brought to the input size and averaged over stages, scales
    and, with `flip`, the mirrored image (left and right classes exchanged). The model should be in
    evaluation mode and on the device of the images.

    Args:
        images: (B, H, W, 3) uint8 RGB, any size.
        scales: factors of the input size, truncated to whole pixels.

    Returns:
        (B, classes, H, W) float.

    Raises:
        ValueError: wrong images, or a scale at which the image vanishes.
    """
    x = preprocess(images)
    height, width = x.shape[2:]
    total = torch.zeros(len(x), model.num_classes, height, width, device=x.device)
    count = 0
    for mirrored in (False, True) if flip else (False,):
        view = x.flip(3) if mirrored else x
        for scale in scales:
            size = (int(height * scale), int(width * scale))
            if min(size) < 1:
                raise ValueError(f"scale {scale} leaves nothing of a {height}x{width} px image")
            # The mean over the stages first: resizing is linear, and the maps are small before it.
            stages = model(resize_bilinear(view, size)).parsing
            logits = resize_bilinear(torch.stack(stages).mean(dim=0), (height, width))
            total += _mirror_classes(logits).flip(3) if mirrored else logits
            count += 1
    return total / count


def parse(model: PGN, images: Tensor, scales: Sequence[float] = SCALES, flip: bool = True) -> Tensor:
    """Part labels (B, H, W) uint8 as published, see `CLASSES`: the class of the highest of `mean_logits`."""
    return mean_logits(model, images, scales, flip).argmax(dim=1).to(torch.uint8)


def person_margin(logits: Tensor) -> Tensor:
    """Log odds of person against background, (B, H, W), from logits (B, classes, H, W).

    Under the softmax, P(person) = 1 - P(background) > 1/2 exactly where this is positive. That is more than
    where a part is the likeliest class: a person whose parts are unsure is still a person.
    """
    return torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]


def person_labels(logits: Tensor) -> Tensor:
    """(B, H, W) uint8: the likeliest part where person is likelier than background, else 0; see `CLASSES`."""
    parts = logits[:, 1:].max(dim=1).indices + 1  # four times as fast as argmax on CPUs
    return torch.where(person_margin(logits) > 0, parts, 0).to(torch.uint8)


def _mirror_classes(logits: Tensor) -> Tensor:
    """Exchange left and right arms, legs and shoes: classes 14-15, 16-17, 18-19."""
    order = list(range(logits.shape[1]))
    for left in range(14, len(order) - 1, 2):
        order[left], order[left + 1] = order[left + 1], order[left]
    return logits[:, order]


class _ConvNorm(nn.Module):
    """Convolution without bias, then batch norm with TF-slim's epsilon."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = SameConv2d(inputs, outputs, kernel, stride, dilation, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class _Bottleneck(nn.Module):
    """Residual block; the first of a stage projects its input and carries the stride."""

    def __init__(self, inputs: int, inner: int, outputs: int, first: bool, stride: int, dilation: int) -> None:
        super().__init__()
        self.branch1 = _ConvNorm(inputs, outputs, stride=stride) if first else nn.Identity()
        self.branch2a = _ConvNorm(inputs, inner, stride=stride)
        self.branch2b = _ConvNorm(inner, inner, kernel=3, dilation=dilation)
        self.branch2c = _ConvNorm(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch2b(self.branch2a(x).relu()).relu()
        return (self.branch1(x) + self.branch2c(y)).relu()


def _stage(inputs: int, inner: int, outputs: int, depth: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = _Bottleneck(inputs, inner, outputs, True, stride, dilation)
    rest = (_Bottleneck(outputs, inner, outputs, False, 1, dilation) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


class _Pyramid(nn.Module):
    """Pyramid pooling: the map and its means over windows of several sizes, then one convolution."""

    def __init__(self, inputs: int, outputs: int, windows: Sequence[int]) -> None:
        super().__init__()
        self.windows = tuple(windows)
        self.levels = nn.ModuleList(SameConv2d(inputs, outputs, 3) for _ in windows)
        self.fuse = SameConv2d(inputs + len(windows) * outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        levels = [
            resize_bilinear(conv(mean_pool_same(x, window)).relu(), size)
            for conv, window in zip(self.levels, self.windows, strict=True)
        ]
        return self.fuse(torch.cat([x, *levels], dim=1)).relu()


class _Branch(nn.Module):
    """First stage of parsing or edges: three backbone taps -> (reduced taps, context, logits)."""

    def __init__(
        self, taps: Sequence[int], reduced: int, inner: int, outputs: int, windows: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.taps = nn.ModuleList(SameConv2d(channels, reduced, 3) for channels in taps)
        self.join = SameConv2d(len(taps) * reduced, reduced, 3)
        self.pyramid = _Pyramid(reduced, inner, windows)
        self.dropout = nn.Dropout(dropout)
        self.logits = SameConv2d(inner, outputs, 3)

    def forward(self, taps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        reduced = [conv(tap).relu() for conv, tap in zip(self.taps, taps, strict=True)]
        context = self.pyramid(self.join(torch.cat(reduced, dim=1)).relu())
        return reduced, context, self.logits(self.dropout(context))


class _SideOutput(nn.Module):
    """Edge logits of one tap, for supervision of the backbone: a sum over five dilations."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(SameConv2d(inputs, 1, 3, dilation=d) for d in (1, 2, 4, 8, 16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([conv(x) for conv in self.dilated]).sum(dim=0)


class _Refinement(nn.Module):
    """Second stage: joint features -> refined logits."""

    def __init__(self, inputs: int, inner: int, outputs: int, windows: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.join = SameConv2d(inputs, inner, 3)
        self.pyramid = _Pyramid(inner, inner, windows)
        self.dropout = nn.Dropout(dropout)
        self.logits = SameConv2d(inner, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.dropout(self.pyramid(self.join(x).relu())))
