"""A small convolutional classifier: its features are where the pipeline compares generated digits with real ones."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genpipe.capabilities import Classifies, Embeds, Example
from genpipe.nn.conv import ConvEncoder
from genpipe.nn.pixels import scaled
from genpipe.params.blocks import Count
from genpipe.recipe import Batch, Loss, Phase, Recipe, Update


class Classifier(Recipe, Classifies, Embeds):
    """Convolutions, `feature_dim` ReLU features, and a linear layer."""

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, width: Count = 16, feature_dim: Count = 64
    ) -> None:
        super().__init__()
        self.encoder = ConvEncoder(image_shape, width, feature_dim)
        self.head = nn.Linear(feature_dim, num_classes)

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of the label."""
        return (Phase("likelihood", (Update("nll", self.cross_entropy, (self,)),)),)

    def cross_entropy(self, batch: Batch) -> Loss:
        """Nats a label: classes, [batch], or the shares of each class, [batch, num_classes], as mixup makes them."""
        logits = self.classify({"images": scaled(batch["images"], self.head.weight.dtype)})
        labels = batch["labels"]
        if labels.is_floating_point():  # of a mixture no prediction is right
            return Loss(F.cross_entropy(logits, labels), logits=logits)
        accuracy = (logits.detach().argmax(-1) == labels).to(logits.dtype).mean()
        return Loss(F.cross_entropy(logits, labels), {"accuracy": accuracy}, logits)

    def embed(self, x: Example) -> Tensor:
        """ReLU features, [batch, feature_dim]."""
        return torch.relu(self.encoder(2 * x["images"] - 1))

    def classify(self, x: Example) -> Tensor:
        """Logits, [batch, num_classes]."""
        return self.head(self.embed(x))
