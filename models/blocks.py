"""The parts CroCo and MAE are built from: patch embedding, pre-norm self-attention block, and
CroCo's decoder block that also attends to the second image. Module names are those of the published
state dicts (naver/croco, facebookresearch/mae; the encoder block also timm's).
Cosine or rotary positions (CroCo v2) are decided by the caller, who passes the rotation or None."""

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from models.patches import patchify
from models.position import rotate


def carried(tokens: Tensor) -> Tensor:
    """Tokens as one block gives them to the next: on a GPU that computes in bfloat16 in bfloat16 as well, since there
    what blocks do between their products takes as long as its bytes do; elsewhere as they are."""
    if tokens.is_cuda and torch.is_autocast_enabled("cuda"):
        return tokens.to(torch.get_autocast_dtype("cuda"))
    return tokens


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention (B, H, L, D), (B, H, M, D), (B, H, M, D) -> (B, H, L, D).

    In bfloat16 on processors by plain products: torch's fused kernel has a slow backward pass there, and its own plain
    form looks through all weights for rows that are masked altogether, of which there are none.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value)
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return weights.softmax(dim=-1) @ value


class LayerNorm(nn.LayerNorm):
    """Layer norm with the epsilon of ViT, MAE and CroCo."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)


class SelfAttention(nn.Module):
    """Multi-head self-attention (B, L, C) -> (B, L, C) with optional rotary positions."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        y = attend(query, key, value)
        return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class CrossAttention(nn.Module):
    """Multi-head attention from target tokens (B, L, C) to memory tokens (B, M, C)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, rotary: Tensor | None = None) -> Tensor:
        def heads(tokens: Tensor) -> Tensor:
            return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)

        query, key = heads(self.projq(x)), heads(self.projk(memory))
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        y = attend(query, key, heads(self.projv(memory)))
        return self.proj(y.transpose(1, 2).reshape(x.shape))


class EncoderBlock(nn.Module):
    """Pre-norm ViT block; `drop_path` drops residual branches per sample during fine-tuning."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, rotary: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), rotary))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DecoderBlock(nn.Module):
    """Self-attention on the target, cross-attention to the memory, MLP.

    The memory is not updated; each block has its own norm of it unless `norm_memory` is off.
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, norm_memory: bool = True) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = LayerNorm(width)
        self.norm_y = LayerNorm(width) if norm_memory else nn.Identity()
        self.cross_attn = CrossAttention(width, num_heads)
        self.norm3 = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, memory: Tensor, rotary: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotary)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), rotary)
        return x + self.mlp(self.norm3(x))


class PatchEmbedding(nn.Module):
    """Linear map of patches to tokens, stored as the convolution kernel all ViTs share.

    Only visible patches are multiplied: a product of gathered patches is cheaper than the
    convolution whenever patches are hidden, and on GPUs always, and equal to it.
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, L, C), in raster order or in the order of `visible` (B, L)."""
        if visible is None and not image.is_cuda:
            return self.proj(image).flatten(2).transpose(1, 2)
        patches = patchify(image, self.patch_size)
        if visible is not None:
            patches = patches.gather(1, visible[:, :, None].expand(-1, -1, patches.shape[2]))
        kernel = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (row, column, channel)
        return F.linear(patches, kernel, self.proj.bias)


def initialize_transformer(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of CroCo and MAE anew, in place and in the order of the module's parameters.

    Linear layers and the flattened patch kernel: Xavier uniform, zero bias. Norms: 1 and 0.
    Mask and class tokens: normal with deviation 0.02.
    """
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        elif isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(part.weight.flatten(1), generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for name in ("mask_token", "cls_token"):
        if isinstance(token := getattr(module, name, None), nn.Parameter):
            nn.init.normal_(token, std=0.02, generator=generator)


def check_image(image: Tensor, img_size: int) -> None:
    """Raise a ValueError unless `image` is (B, 3, img_size, img_size) of floats."""
    if image.ndim != 4 or image.shape[1:] != (3, img_size, img_size):
        raise ValueError(
            f"this model takes images of shape (B, 3, {img_size}, {img_size}), got "
            f"{tuple(image.shape)}; resize the images, or load the checkpoint with img_size=..."
        )
    if not image.is_floating_point():
        raise ValueError(f"images must be normalised floats, not {image.dtype}; see models.patches.normalize_images")
