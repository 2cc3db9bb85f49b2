"""MAE: masked autoencoder (He et al., 2021, arXiv:2111.06377; as Dropout of tokens: archives/8770).

An image is cut into patches. An encoder sees a quarter of them, a small decoder says what the others are; afterwards the
encoder sees all patches, and the mean of its tokens are the features of the image. Targets are patches of mean 0 and
variance 1. Departs from the paper: the decoder also says the mean and the deviation of a patch, so that what it restores are
images, without a look at what is hidden; no class token.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from genpipe.capabilities import Encodes, Example, Masks
from genpipe.errors import BadInput
from genpipe.nn.masking import is_kept, keep_some, taken
from genpipe.nn.pixels import scaled
from genpipe.nn.transformer import Transformer, grid_positions
from genpipe.params.blocks import Count, DecayRate
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update, mean_over

LEAST_VARIANCE = 1e-6  # added to that of a patch, as in the authors' code
Share = Annotated[float, Field(gt=0, lt=1)]


def patches_of(images: Tensor, side: int) -> Tensor:
    """[n, channels, height, width] → patches in the order of reading, [n, patches, channels · side²]."""
    n, channels, height, width = images.shape
    cut = images.reshape(n, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def images_of(patches: Tensor, image_shape: tuple[int, int, int], side: int) -> Tensor:
    """The images, [n, channels, height, width], of their patches."""
    channels, height, width = image_shape
    cut = patches.unflatten(1, (height // side, width // side)).unflatten(-1, (channels, side, side))
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def standardised(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(t − μ)/σ of patches, [..., pixels], and μ and σ, [..., 1]; σ² is the unbiased variance plus 10⁻⁶."""
    mean = patches.mean(-1, keepdim=True)
    deviation = (
        (patches - mean).square().sum(-1, keepdim=True) / (patches.shape[-1] - 1) + LEAST_VARIANCE
    ).sqrt()
    return (patches - mean) / deviation, mean, deviation


class MAE(Recipe, Encodes, Masks):
    """An encoder of the patches that are seen, and a decoder of those that are not."""

    positions: Tensor
    decoder_positions: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch: Count = 4,
        width: Count = 64,
        num_blocks: Count = 3,
        decoder_width: Count = 64,
        num_decoder_blocks: Count = 1,
        num_heads: Count = 4,
        hidden_share: Share = 0.75,
        drop_token: DecayRate = 0.0,
        normalise: bool = True,
    ) -> None:
        """`drop_token`: the share of the patches left that the encoder is not given either, and that no error is of."""
        super().__init__()
        channels, *sides = image_shape
        if any(side % patch for side in sides):
            raise BadInput(
                f"patch: must divide the sides of images, {sides[0]}×{sides[1]}, not {patch}; take another, or set "
                "datasets.*.image_size"
            )
        self.image_shape, self.patch = image_shape, patch
        rows, columns = (side // patch for side in sides)
        self.num_patches, size = rows * columns, channels * patch**2
        self.num_seen = int(self.num_patches * (1 - hidden_share))
        if not self.num_seen:
            raise BadInput(
                f"hidden_share: {hidden_share:g} leaves none of {self.num_patches} patches; lower it, or take smaller patches"
            )
        if normalise and size == 1:
            raise BadInput(
                "normalise: a patch of one number has no variance; take larger patches, or normalise false"
            )
        self.num_given = max(1, round(self.num_seen * (1 - drop_token)))
        self.normalise = normalise
        self.embed = nn.Linear(size, width)
        self.encoder = Transformer(width, num_blocks, num_heads)
        self.between = nn.Linear(width, decoder_width)
        self.hidden = nn.Parameter(0.02 * torch.randn(decoder_width))  # the token of a patch that is not seen
        self.decoder = Transformer(decoder_width, num_decoder_blocks, num_heads)
        self.head = nn.Linear(decoder_width, size + 2 if normalise else size)
        self.register_buffer("positions", grid_positions(rows, columns, width))
        self.register_buffer("decoder_positions", grid_positions(rows, columns, decoder_width))

    def phases(self) -> tuple[Phase, ...]:
        """One update over everything."""
        return (Phase("restore", (Update("restore", self.restoration_error, (self,)),)),)

    def restoration_error(self, batch: Batch) -> Loss:
        """Mean squared error over the numbers of hidden patches, and nothing of those that are seen."""
        patches = patches_of(self._centred(scaled(batch["images"], self.positions.dtype)), self.patch)
        kept = keep_some(len(patches), self.num_patches, self.num_seen, patches.device)
        predicted = self._decoded(self._seen_tokens(patches, kept.rows[:, : self.num_given]), kept.restore)
        is_hidden = ~is_kept(kept)
        errors = (predicted - self._targets(patches)).square()
        pixels = (self._values(predicted) - patches).square().mean(-1).detach() / 4
        return mean_over(errors.mean(-1), is_hidden, mse=pixels)

    def encode(self, x: Example) -> Tensor:
        """The mean of the encoder's tokens of all patches, [n, width]."""
        return self.encoder(self._tokens(patches_of(self._centred(x["images"]), self.patch))).mean(1)

    def draw_keep(self, n: int) -> Tensor:
        """Which pixels a training leaves, bool [n, channels, height, width], with torch's global generator."""
        kept = is_kept(keep_some(n, self.num_patches, self.num_seen))
        size = self.head.out_features - 2 * self.normalise
        return images_of(kept.unsqueeze(-1).expand(-1, -1, size), self.image_shape, self.patch)

    def restore(self, x: Example, keep: Tensor) -> Example:
        """Images whose pixels where `keep`, bool [n, channels, height, width], is false are the model's.

        It sees the patches that are kept as a whole; of others it restores what is not kept.
        """
        images = x["images"]
        is_seen = patches_of(keep, self.patch).all(-1)
        patches = patches_of(self._centred(images), self.patch)
        tokens = self.between(self.encoder(self._tokens(patches), is_seen))
        tokens = torch.where(is_seen.unsqueeze(-1), tokens, self.hidden.expand_as(tokens))
        predicted = self._values(self.head(self.decoder(tokens + self.decoder_positions)))
        made = (images_of(predicted, self.image_shape, self.patch) + 1) / 2
        return {"images": torch.where(keep, images, made.clamp(0, 1))}

    def _centred(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def _tokens(self, patches: Tensor) -> Tensor:
        """Patches with their positions, [n, patches, width]."""
        return self.embed(patches) + self.positions

    def _seen_tokens(self, patches: Tensor, places: Tensor) -> Tensor:
        """What the encoder makes of the patches at places, int64 [n, seen]: [n, seen, decoder_width]."""
        return self.between(self.encoder(taken(self._tokens(patches), places)))

    def _decoded(self, seen: Tensor, restore: Tensor) -> Tensor:
        """What the decoder says of every patch, [n, patches, numbers], from the tokens that are seen."""
        missing = self.hidden.expand(len(seen), self.num_patches - seen.shape[1], -1)
        tokens = taken(torch.cat([seen, missing.to(seen.dtype)], 1), restore)
        return self.head(self.decoder(tokens + self.decoder_positions))

    def _targets(self, patches: Tensor) -> Tensor:
        """Numbers of each patch: standardised pixels, its mean and deviation; or its pixels."""
        return torch.cat(standardised(patches), -1) if self.normalise else patches

    def _values(self, predicted: Tensor) -> Tensor:
        """Pixels in [−1, 1] of what the decoder says, [n, patches, pixels]."""
        if not self.normalise:
            return predicted
        return predicted[..., :-2] * predicted[..., -1:] + predicted[..., -2:-1]
