"""CroCo: complete the hidden patches of a target image with the help of a second image of the same
person, another view or another pose (CroCo-Human Sec. 3.1; network of CroCo v1, and of v2 with
rotary positions). State-dict names and constructor arguments are those of naver/croco, but for its `mask_ratio`:
the mask is an argument of `forward`."""

from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import (
    DecoderBlock,
    EncoderBlock,
    LayerNorm,
    PatchEmbedding,
    carried,
    check_image,
    initialize_transformer,
)
from models.completion import Completion, completion_loss
from models.patches import visible_indices
from models.position import rotary_table, sine_cosine_2d

__all__ = ["Completion", "CroCo", "CroCoEncoder", "completion_loss"]


class CroCoEncoder(nn.Module):
    """The ViT encoder of CroCo: no class token, cosine or rotary positions.

    Args:
        img_size: side of the square input, px.
        patch_size: side of a patch, px.
        enc_embed_dim, enc_depth, enc_num_heads, mlp_ratio: sizes of the transformer.
        pos_embed: "cosine" (v1), or "RoPE<base>" such as "RoPE100" (v2).
        drop_path: share of residual branches dropped in the last block, rising linearly from 0.

    Raises:
        ValueError: sizes that do not divide each other, or an unknown `pos_embed`.
    """

    enc_pos_embed: Tensor
    enc_rotary: Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        enc_embed_dim: int = 768,
        enc_depth: int = 12,
        enc_num_heads: int = 12,
        mlp_ratio: float = 4,
        pos_embed: str = "cosine",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        img_size = _square_side(img_size)
        if img_size % patch_size:
            raise ValueError(f"img_size {img_size} is no multiple of patch_size {patch_size}")
        if enc_embed_dim % enc_num_heads:
            raise ValueError(f"width {enc_embed_dim} does not divide into {enc_num_heads} heads")
        self.img_size, self.patch_size, self.width = img_size, patch_size, enc_embed_dim
        self.grid = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid[0] * self.grid[1]
        self.config: dict[str, Any] = dict(
            img_size=img_size,
            patch_size=patch_size,
            enc_embed_dim=enc_embed_dim,
            enc_depth=enc_depth,
            enc_num_heads=enc_num_heads,
            mlp_ratio=mlp_ratio,
            pos_embed=pos_embed,
        )

        self.patch_embed = PatchEmbedding(patch_size, enc_embed_dim)
        self.rotary_base = _rotary_base(pos_embed)
        if self.rotary_base is None:
            self.register_buffer("enc_pos_embed", sine_cosine_2d(enc_embed_dim, self.grid))
        else:
            table = rotary_table(enc_embed_dim // enc_num_heads, self.grid, self.rotary_base)
            self.register_buffer("enc_rotary", table, persistent=False)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(enc_embed_dim, enc_num_heads, mlp_ratio, drop_path * i / max(enc_depth - 1, 1))
            for i in range(enc_depth)
        )
        self.enc_norm = LayerNorm(enc_embed_dim)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: Xavier uniform for linear layers and the flattened patch kernel."""
        initialize_transformer(self, generator)

    def encode(self, image: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode the visible patches of normalised images.

        Args:
            image: (B, 3, H, W) float, ImageNet-normalised, H = W = img_size.
            hidden: (B, N) bool, True = left out; None = all patches are seen.

        Returns:
            (B, L, C) tokens of the visible patches in raster order, after the final norm.

        Raises:
            ValueError: image or mask of a wrong shape; rows with different numbers of patches.
        """
        check_image(image, self.img_size)
        visible = None
        if hidden is not None:
            visible = visible_indices(hidden, len(image), self.num_patches)
        return self._encode(image, visible)

    def _encode(self, image: Tensor, visible: Tensor | None) -> Tensor:
        x = self.patch_embed(image, visible)
        rotary = None
        if self.rotary_base is None:
            position = self.enc_pos_embed
            x = x + (position if visible is None else position[visible])
        else:
            rotary = self.enc_rotary
            if visible is not None:
                rotary = rotary[:, visible].unsqueeze(2)
        x = carried(x)
        for block in self.enc_blocks:
            x = block(x, rotary)
        return self.enc_norm(x)

    def forward(self, image: Tensor) -> Tensor:
        """All patch tokens (B, N, C) of an image; see `encode`."""
        return self.encode(image)


class CroCo(CroCoEncoder):
    """Encoder shared by both images, cross-attention decoder, linear prediction of patches.

    Args:
        dec_embed_dim, dec_depth, dec_num_heads: sizes of the decoder.
        norm_im2_in_dec: normalise the second image's tokens in every decoder block.
        Others: see `CroCoEncoder`.

    Raises:
        ValueError: as `CroCoEncoder`.
    """

    dec_pos_embed: Tensor
    dec_rotary: Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        enc_embed_dim: int = 768,
        enc_depth: int = 12,
        enc_num_heads: int = 12,
        dec_embed_dim: int = 512,
        dec_depth: int = 8,
        dec_num_heads: int = 16,
        mlp_ratio: float = 4,
        norm_im2_in_dec: bool = True,
        pos_embed: str = "cosine",
    ) -> None:
        super().__init__(img_size, patch_size, enc_embed_dim, enc_depth, enc_num_heads, mlp_ratio, pos_embed)
        if dec_embed_dim % dec_num_heads:
            raise ValueError(f"width {dec_embed_dim} does not divide into {dec_num_heads} heads")
        self.decoder_width = dec_embed_dim
        self.config |= dict(
            dec_embed_dim=dec_embed_dim,
            dec_depth=dec_depth,
            dec_num_heads=dec_num_heads,
            norm_im2_in_dec=norm_im2_in_dec,
        )

        self.mask_token = nn.Parameter(torch.zeros(1, 1, dec_embed_dim))
        if self.rotary_base is None:
            self.register_buffer("dec_pos_embed", sine_cosine_2d(dec_embed_dim, self.grid))
        else:
            table = rotary_table(dec_embed_dim // dec_num_heads, self.grid, self.rotary_base)
            self.register_buffer("dec_rotary", table, persistent=False)
        self.decoder_embed = nn.Linear(enc_embed_dim, dec_embed_dim)
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(dec_embed_dim, dec_num_heads, mlp_ratio, norm_im2_in_dec) for _ in range(dec_depth)
        )
        self.dec_norm = LayerNorm(dec_embed_dim)
        self.prediction_head = nn.Linear(dec_embed_dim, 3 * patch_size**2)
        self.reset_parameters()

    def decode(self, target_tokens: Tensor, reference_tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """Decode the target with the reference as memory.

        Args:
            target_tokens: (B, L, C) encoder tokens of the target.
            reference_tokens: (B, N, C) encoder tokens of the reference, nothing hidden.
            visible: (B, L) raster index of each target token; mask tokens fill the other places.
                None = the target is fully visible (L = N).

        Returns:
            (B, N, C_dec) decoder tokens after the final norm.

        Raises:
            ValueError: token counts that do not fit the grid of this model.
        """
        batch = len(target_tokens)
        expected = self.num_patches if visible is None else visible.shape[1]
        if target_tokens.shape[1] != expected or reference_tokens.shape[1] != self.num_patches:
            raise ValueError(
                f"expected {expected} target and {self.num_patches} reference tokens, "
                f"got {target_tokens.shape[1]} and {reference_tokens.shape[1]}"
            )
        x, memory = self.decoder_embed(target_tokens), self.decoder_embed(reference_tokens)
        if visible is not None:
            full = self.mask_token.to(x.dtype).repeat(batch, self.num_patches, 1)
            x = full.scatter(1, visible[:, :, None].expand_as(x), x)
        rotary = None
        if self.rotary_base is None:
            x, memory = x + self.dec_pos_embed, memory + self.dec_pos_embed
        else:
            rotary = self.dec_rotary
        x, memory = carried(x), carried(memory)
        for block in self.dec_blocks:
            x = block(x, memory, rotary)
        return self.dec_norm(x)

    def forward(  # type: ignore[override]
        self, target: Tensor, reference: Tensor, hidden: Tensor, visible: Tensor | None = None
    ) -> Completion:
        """Predict all patches of the target from its visible patches and the reference.

        Args:
            target, reference: (B, 3, H, W) float, ImageNet-normalised, H = W = img_size.
            hidden: (B, N) bool, True = hidden; the same number in every row.
            visible: (B, L) `visible_indices` of `hidden`, from who has them: finding them makes a GPU wait.

        Raises:
            ValueError: images or mask of a wrong shape; rows hiding different numbers of patches.
        """
        return self.complete(target, self.encode(reference), hidden, visible)

    def complete(
        self, target: Tensor, reference_tokens: Tensor, hidden: Tensor, visible: Tensor | None = None
    ) -> Completion:
        """The same from the tokens (B, N, C) of the reference, for those who need them otherwise as well."""
        check_image(target, self.img_size)
        if visible is None:
            visible = visible_indices(hidden, len(target), self.num_patches)
        tokens = self.decode(self._encode(target, visible), reference_tokens, visible)
        return Completion(self.prediction_head(tokens), hidden)


def _square_side(img_size: int | tuple[int, int] | list[int]) -> int:
    # Upstream also writes (H, W) into croco_kwargs; its pre-trained models are all square.
    if isinstance(img_size, (tuple, list)):
        if len(set(img_size)) != 1:
            raise ValueError(f"only square images are supported, not {tuple(img_size)}")
        return int(img_size[0])
    return img_size


def _rotary_base(pos_embed: str) -> float | None:
    if pos_embed == "cosine":
        return None
    if pos_embed.startswith("RoPE"):
        try:
            return float(pos_embed[len("RoPE") :])
        except ValueError:
            pass
    raise ValueError(f"pos_embed must be 'cosine' or 'RoPE<base>' such as 'RoPE100', not {pos_embed!r}")
