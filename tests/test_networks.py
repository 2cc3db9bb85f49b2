"""Networks by name: shapes, conditions, and what an example's score depends on."""

import pytest
import torch
from torch import nn

from genpipe.errors import BadInput
from genpipe.nn.conv import ConvEncoder, ConvGenerator, halvings_of
from genpipe.nn.networks import Critic, Encoder, Generator

IMAGES = [("dcgan", (1, 28, 28)), ("dcgan", (3, 32, 32)), ("resnet", (1, 28, 28)), ("resnet", (3, 32, 32))]
EXAMPLES = [("mlp", (2,)), ("mlp", (1, 28, 28)), ("mlp", (3, 32, 32)), *IMAGES]
every_network = pytest.mark.parametrize(("architecture", "shape"), EXAMPLES)
with_or_without_classes = pytest.mark.parametrize("num_classes", [None, 5])


def labels_of(num_classes, n):
    return None if num_classes is None else torch.arange(n) % num_classes


@every_network
@with_or_without_classes
def test_shapes_and_gradients(architecture, shape, num_classes):
    z, labels = torch.randn(3, 6), labels_of(num_classes, 3)
    generator = Generator(architecture, shape, latent_dim=6, width=4, num_classes=num_classes)
    critic = Critic(architecture, shape, 4, 8, num_classes, dropout=0.1)
    encoder = Encoder(architecture, shape, 4, 8, 5, num_classes)
    made = generator(z, labels)
    assert made.shape == (3, *shape)
    scores, codes = critic(made, labels), encoder(made, labels)
    assert scores.shape == (3,)
    assert codes.shape == (3, 5)
    modules = nn.ModuleList([generator, critic, encoder])
    (scores.sum() + codes.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in modules.parameters())
    if len(shape) > 1:
        assert made.abs().max() <= 1


@every_network
@with_or_without_classes
def test_what_a_critic_and_an_encoder_say_of_an_example_is_its_own(architecture, shape, num_classes):
    x, labels = torch.randn(4, *shape).double(), labels_of(num_classes, 4)
    for network in (
        Critic(architecture, shape, 4, 8, num_classes),
        Encoder(architecture, shape, 4, 8, 5, num_classes),
    ):
        network.double()
        own = network(x[1:2], None if labels is None else labels[1:2])
        assert torch.allclose(network(x, labels)[1:2], own, atol=1e-12)


@every_network
def test_the_class_changes_what_each_network_says(architecture, shape):
    x, z = torch.randn(1, *shape).expand(5, *shape), torch.randn(1, 6).expand(5, 6)
    labels = torch.arange(5)
    networks = [
        (Generator(architecture, shape, 6, 4, 5).eval(), z),
        (Critic(architecture, shape, 4, 8, 5), x),
        (Encoder(architecture, shape, 4, 8, 5, 5), x),
    ]
    for network, given in networks:
        said = (
            network(given, labels).flatten(1)
            if network(given, labels).dim() > 1
            else network(given, labels)[:, None]
        )
        assert (said[:1] - said[1:]).abs().amax(1).min() > 1e-6


def test_a_conditional_critic_is_a_projection_on_its_class():
    """score(x, y) = (w + v_y) · features(x) (Miyato & Koyama, 2018)."""
    critic = Critic("mlp", (2,), 4, 8, num_classes=3).double()
    assert critic.classes is not None
    x, labels = torch.randn(6, 2).double(), torch.arange(6) % 3
    found = critic.activation(critic.features(x))
    weights = critic.head.weight + critic.classes.weight[labels]
    assert torch.allclose(critic(x, labels), (weights * found).sum(1), atol=1e-14)


def test_sides_are_halved_while_four_rows_and_columns_are_left():
    sizes = {(28, 28): 2, (32, 32): 3, (8, 8): 1, (64, 64): 4, (12, 12): 1, (20, 28): 2, (8, 64): 1}
    assert {sides: halvings_of((1, *sides)) for sides in sizes} == sizes


def test_convolutional_networks_have_the_weights_that_they_always_had():
    """Of images whose sides are halved twice: the order of the layers is the order in which their weights are drawn."""
    torch.manual_seed(3)
    encoder, generator = ConvEncoder((1, 28, 28), 4, 8), ConvGenerator((1, 28, 28), 4, 5)
    torch.manual_seed(3)
    right = nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=2, padding=1),
        nn.Conv2d(4, 8, 4, stride=2, padding=1),
        nn.Linear(8 * 49, 8),
        nn.Linear(5, 8 * 49),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1),
    )
    found = [*encoder.parameters(), *generator.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(found, right.parameters(), strict=True))
    names = ["layers.0.weight", "layers.2.weight", "layers.5.weight"]
    assert [name for name, _ in encoder.named_parameters() if "weight" in name] == names


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("dcgan", (2,), "dcgan takes images, and these are points; take mlp"),
        ("resnet", (1, 1, 1), "resnet takes images of 8×8 or more, not 1×1; take mlp"),
        ("dcgan", (1, 15, 16), "must be even and 8 or more for this network, not 15×16"),
    ],
)
def test_examples_that_do_not_fit_an_architecture_are_refused(architecture, shape, message):
    for make in (lambda: Generator(architecture, shape, 4, 4), lambda: Critic(architecture, shape, 4, 8)):
        with pytest.raises(BadInput, match=message):
            make()
