"""Masked autoencoder (the single-image baseline of CroCo-Human, Sec. 4.3 and Fig. 4): a ViT encoder with
class token on the visible patches, a light decoder on all of them. Constructor arguments and
state-dict names are those of facebookresearch/mae; the encoder's are also timm's."""

from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import EncoderBlock, LayerNorm, PatchEmbedding, carried, check_image, initialize_transformer
from models.completion import Completion
from models.patches import visible_indices
from models.position import sine_cosine_2d


class MAEEncoder(nn.Module):
    """The ViT encoder of MAE: class token, fixed sine-cosine positions.

    Args:
        img_size: side of the square input, px.
        patch_size: side of a patch, px.
        embed_dim, depth, num_heads, mlp_ratio: sizes of the transformer.
        drop_path: share of residual branches dropped in the last block, rising linearly from 0.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    pos_embed: Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if img_size % patch_size:
            raise ValueError(f"img_size {img_size} is no multiple of patch_size {patch_size}")
        if embed_dim % num_heads:
            raise ValueError(f"width {embed_dim} does not divide into {num_heads} heads")
        self.img_size, self.patch_size, self.width = img_size, patch_size, embed_dim
        self.grid = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid[0] * self.grid[1]
        self.config: dict[str, Any] = dict(
            img_size=img_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
        )

        self.patch_embed = PatchEmbedding(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.register_buffer("pos_embed", sine_cosine_2d(embed_dim, self.grid, class_token=True)[None])
        self.blocks = nn.ModuleList(
            EncoderBlock(embed_dim, num_heads, mlp_ratio, drop_path * i / max(depth - 1, 1)) for i in range(depth)
        )
        self.norm = LayerNorm(embed_dim)
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
            (B, L, C) patch tokens in raster order after the final norm, without the class token.

        Raises:
            ValueError: image or mask of a wrong shape; rows with different numbers of patches.
        """
        return self.encode_with_class_token(image, hidden)[:, 1:]

    def encode_with_class_token(self, image: Tensor, hidden: Tensor | None = None) -> Tensor:
        """As `encode`, with the class token in front: (B, 1 + L, C)."""
        check_image(image, self.img_size)
        visible = None
        if hidden is not None:
            visible = visible_indices(hidden, len(image), self.num_patches)
        return self._encode(image, visible)

    def _encode(self, image: Tensor, visible: Tensor | None) -> Tensor:
        class_position, position = self.pos_embed[0, :1], self.pos_embed[0, 1:]
        x = self.patch_embed(image, visible)
        x = x + (position if visible is None else position[visible])
        x = torch.cat([(self.cls_token + class_position).expand(len(x), -1, -1), x], dim=1)
        x = carried(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, image: Tensor) -> Tensor:
        """All patch tokens (B, N, C) of an image; see `encode`."""
        return self.encode(image)


class MAE(MAEEncoder):
    """Encoder, self-attention decoder and linear prediction of patches.

    Args:
        decoder_embed_dim, decoder_depth, decoder_num_heads: sizes of the decoder.
        Others: see `MAEEncoder`.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    decoder_pos_embed: Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__(img_size, patch_size, embed_dim, depth, num_heads, mlp_ratio)
        if decoder_embed_dim % decoder_num_heads:
            raise ValueError(f"width {decoder_embed_dim} does not divide into {decoder_num_heads} heads")
        self.config |= dict(
            decoder_embed_dim=decoder_embed_dim,
            decoder_depth=decoder_depth,
            decoder_num_heads=decoder_num_heads,
        )
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.register_buffer("decoder_pos_embed", sine_cosine_2d(decoder_embed_dim, self.grid, class_token=True)[None])
        self.decoder_blocks = nn.ModuleList(
            EncoderBlock(decoder_embed_dim, decoder_num_heads, mlp_ratio) for _ in range(decoder_depth)
        )
        self.decoder_norm = LayerNorm(decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, 3 * patch_size**2)
        self.reset_parameters()

    def forward(  # type: ignore[override]
        self, image: Tensor, hidden: Tensor, visible: Tensor | None = None
    ) -> Completion:
        """Predict all patches of an image from its visible ones.

        Args:
            image: (B, 3, H, W) float, ImageNet-normalised, H = W = img_size.
            hidden: (B, N) bool, True = hidden; the same number in every row.
            visible: (B, L) `visible_indices` of `hidden`, from who has them: finding them makes a GPU wait.

        Raises:
            ValueError: image or mask of a wrong shape; rows hiding different numbers of patches.
        """
        check_image(image, self.img_size)
        if visible is None:
            visible = visible_indices(hidden, len(image), self.num_patches)
        tokens = self.decoder_embed(self._encode(image, visible))
        class_token, tokens = tokens[:, :1], tokens[:, 1:]
        x = self.mask_token.to(tokens.dtype).repeat(len(image), self.num_patches, 1)
        x = x.scatter(1, visible[:, :, None].expand_as(tokens), tokens)
        x = carried(torch.cat([class_token, x], dim=1) + self.decoder_pos_embed)
        for block in self.decoder_blocks:
            x = block(x)
        x = self.decoder_pred(self.decoder_norm(x))
        return Completion(x[:, 1:], hidden)
