"""Convolution, pooling and resizing with the border rules of TensorFlow 1, which the published PGN was
trained with: SAME padding that may be asymmetric, means over the pixels that exist, and bilinear
resizing without half-pixel centres."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels added before and after an axis so that the output has ceil(size / stride) pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad (B, C, H, W) for an undilated window with SAME semantics."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """Convolution with SAME padding; the amount depends on the input size when the stride is not 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        symmetric = dilation * (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, symmetric, dilation=dilation, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            x = pad_same(x, self.kernel_size[0], self.stride[0])
        return super().forward(x)


def max_pool_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Maximum over windows with SAME padding."""
    return F.max_pool2d(pad_same(x, kernel, stride, value=float("-inf")), kernel, stride)


def mean_pool_same(x: Tensor, window: int) -> Tensor:
    """Mean over windows whose stride is their size, with SAME padding left out of the mean.

    Maps smaller than the window become one pixel, their mean. (B, C, H, W) -> (B, C, h, w).
    """
    rows = _window_weights(x.shape[2], window, x)
    columns = _window_weights(x.shape[3], window, x)
    return rows @ x @ columns.T


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, H, W) in which output pixel i samples input pixel i * in / out."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return _bilinear_weights(x.shape[2], size[0], x) @ x @ _bilinear_weights(x.shape[3], size[1], x).T


def _window_weights(size: int, window: int, like: Tensor) -> Tensor:
    """(ceil(size / window), size): row i averages the existing pixels of window i."""
    before, _ = same_padding(size, window, window)
    index = (torch.arange(size, device=like.device) + before) // window
    weights = F.one_hot(index, -(-size // window)).T.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def _bilinear_weights(size: int, new_size: int, like: Tensor) -> Tensor:
    """(new_size, size) weights of the two neighbours of each output pixel."""
    # float32 as in TensorFlow: the source position decides which neighbours are read
    scale = torch.tensor(size, dtype=torch.float32) / new_size
    source = torch.arange(new_size, dtype=torch.float32) * scale
    low = source.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    share = (source - low).unsqueeze(1)
    weights = F.one_hot(low, size) * (1 - share) + F.one_hot(high, size) * share
    return weights.to(like)
