"""What a trained model can do: judges, panels, commands and laws follow from the capabilities that a recipe inherits.

No training depends on this file. An example is a mapping of named tensors, each with a row an example: images, float
[n, channels, height, width] in [0, 1]; points, float [n, dim]; ids, source, target, int64 [n, time], padded on the right, and
their lengths, int64 [n]; labels, int64 [n].
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from genpipe.nn.pixels import SCALED, Pixels
from genpipe.recipe import Batch

Example = Batch
State = Any  # of a model: a cache of keys and values, the output of an encoder


class Samples(abc.ABC):
    """Draws new examples. What `sample` takes beyond `given` are options, which `recipes.X.sample.how` sets."""

    given: tuple[str, ...] = ()  # names of the conditions that it takes; a model may set its own
    pixels: ClassVar[Pixels] = SCALED  # what an image in [0, 1] is made of, and so how it becomes bytes

    @abc.abstractmethod
    def sample(self, n: int, given: Example) -> Example:
        """`n` examples, one for each row of `given`, drawn with torch's global generator; the key says what was made."""


class LogProb(abc.ABC):
    """Has a density; that of images is of dequantised ones.

    A model of bits has probabilities of images whose pixels are i ≥ 128 as 1.0 and others as 0.0, and `observes` says so.
    """

    observes: Literal["values", "bits"] = "values"  # a model may set its own
    tightness: Literal["exact", "bound", "estimate"] = "exact"  # likewise

    @abc.abstractmethod
    def log_prob(self, x: Example) -> Tensor:
        """Log-density in nats, [n]; conditions are in `x`."""


class Invertible(LogProb):
    """A bijection between examples and latents of equal dimension, with a prior on the latents."""

    @abc.abstractmethod
    def forward(self, x: Example) -> tuple[Tensor, Tensor]:
        """Latents, [n, dim], and the log of the absolute determinant of the Jacobian, [n]."""

    @abc.abstractmethod
    def inverse(self, z: Tensor, given: Example) -> Example:
        """Examples of latents, [n, dim]."""

    @abc.abstractmethod
    def prior_log_prob(self, z: Tensor, given: Example) -> Tensor:
        """Log-density in nats, [n], of latents."""

    def log_prob(self, x: Example) -> Tensor:
        """The density of the prior at the latents, times the absolute determinant, as log-density in nats, [n]."""
        z, log_det = self.forward(x)
        return self.prior_log_prob(z, x) + log_det


class Bounds(abc.ABC):
    """Has latents and an approximate posterior of them, so bounds on the log-likelihood of an example.

    `observes` says what of an image has a likelihood: "values", pixels dequantised to (i + u)/256, with a density; "bits",
    pixels i ≥ 128 as 1.0 and others as 0.0, with a probability. Points are observed as they are.
    """

    observes: Literal["values", "bits"] = "values"  # a model may set its own

    @abc.abstractmethod
    def log_weights(self, x: Example, num: int) -> Tensor:
        """ln p(x, z) − ln q(z | x) in nats, [n, num], of `num` latents z for each example.

        They are drawn from q(z | x) with torch's global generator; conditions are in `x`. The mean over them is the ELBO;
        logsumexp − ln num is the importance-weighted bound (Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519).
        """


class Energy(abc.ABC):
    """Has a density up to a factor, exp(−energy)."""

    @abc.abstractmethod
    def energy(self, x: Example) -> Tensor:
        """Energies, [n], low where examples are likely."""


class Scores(abc.ABC):
    """Has a critic; its scores are no density."""

    @abc.abstractmethod
    def score(self, x: Example) -> Tensor:
        """Scores, [n], high where the critic takes examples for real."""


class Encodes(abc.ABC):
    """Finds the latent code of an example."""

    @abc.abstractmethod
    def encode(self, x: Example) -> Tensor:
        """Latent codes, [n, latent]."""


class Decodes(abc.ABC):
    """Makes an example from a latent code."""

    latent_dim: int

    def draw_codes(self, n: int, given: Example) -> Tensor:
        """Codes of new examples, [n, latent], drawn with torch's global generator: standard Gaussian ones unless a model has others."""
        return torch.randn(n, self.latent_dim)

    @abc.abstractmethod
    def decode(self, z: Tensor, given: Example) -> Example:
        """Examples of latent codes, [n, latent]."""


class NextToken(abc.ABC):
    """Writes token after token."""

    given: tuple[str, ...] = ()  # names of the conditions that it takes; a model may set its own

    @abc.abstractmethod
    def begin(self, given: Example, n: int) -> State:
        """The state before the first token of `n` rows; each of its tensors has a row a row, in dimension 0."""

    @abc.abstractmethod
    def next(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the token after each row's newest, [n, num_tokens], and the new state, for the newest tokens, [n]."""


class Votes(NextToken):
    """Writes one text from several passages at once, as an answer: each passage has probabilities of its own.

    Its conditions have `passages`, int64 [n, passages, time], and `passage_lengths`, [n, passages]; a passage of length 0 only fills
    the row. `next` gives the logarithms of the scores of genpipe/nn/votes.py.
    """

    @abc.abstractmethod
    def next_of_each(self, ids: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Logits of the next token by each passage, [n, passages, num_tokens], and which have a vote, bool [n, passages].

        The last is the new state. A passage whose likeliest first token is the end mark has no vote from there on.
        """


class Tags(abc.ABC):
    """Answers each token with a tag, or with a token."""

    @abc.abstractmethod
    def tag(self, x: Example) -> Tensor:
        """Logits of the answer at each position, [n, time, num_tags], to `source` (pairs) or `ids` (tagged)."""


class RanksLines(Tags):
    """Answers each token with a token, and may know which of these make a line together, and their tones in verse.

    A model without n-grams has a history of 0, and its other methods are not called.
    """

    @abc.abstractmethod
    def history(self) -> int:
        """How many tokens an n-gram looks back at; 0 without n-grams."""

    @abc.abstractmethod
    def histories(self, lines: Tensor) -> Tensor:
        """The tokens before each place of lines, [n, time] → [n, time, history], the nearest one last."""

    @abc.abstractmethod
    def follow(self, history: Tensor) -> Tensor:
        """How much likelier each token is after these than anywhere: log-ratios, [..., history] → [..., num_tokens]."""

    @abc.abstractmethod
    def levels(self) -> Tensor:
        """The logit of the level tone of each token, [num_tokens]; near 0 where it is not known."""


class Embeds(abc.ABC):
    """Has features in which examples can be compared."""

    @abc.abstractmethod
    def embed(self, x: Example) -> Tensor:
        """Features, [n, feature]."""


class Classifies(abc.ABC):
    """Assigns classes."""

    @abc.abstractmethod
    def classify(self, x: Example) -> Tensor:
        """Logits, [n, num_classes]."""


class Restores(abc.ABC):
    """Fills in what is hidden of an example."""

    given: tuple[str, ...] = ()  # names of the conditions that it takes; a model may set its own

    @abc.abstractmethod
    def restore(self, x: Example, keep: Tensor) -> Example:
        """Examples whose parts where `keep`, bool, is false are the model's."""


class Masks(Restores):
    """Is trained to restore what a random mask hides."""

    @abc.abstractmethod
    def draw_keep(self, n: int) -> Tensor:
        """What a training leaves of `n` examples, bool, of their shape, drawn with torch's global generator."""


class Fills(Restores):
    """Knows how likely each token is in the place of a hidden one of a text."""

    @abc.abstractmethod
    def draw_hidden(self, x: Example) -> Tensor:
        """Which tokens of texts a training hides, bool [n, time], drawn with torch's global generator."""

    @abc.abstractmethod
    def fill(self, x: Example, hidden: Tensor) -> Tensor:
        """Logits of hidden tokens, [tokens, num_tokens], in the order of `x["ids"][hidden]`, whose ids are not looked at."""


class Attends(abc.ABC):
    """Reads texts by attention, and can show what its heads look at."""

    @abc.abstractmethod
    def attention(self, x: Example) -> tuple[Tensor, Tensor]:
        """The tokens that it reads of texts, int64 [n, time], and what each takes of each other, [n, blocks, heads, time, time]."""


class Solves(abc.ABC):
    """Follows a differential equation."""

    @abc.abstractmethod
    def trajectory(self, start: Tensor, times: Tensor) -> Tensor:
        """States, [n, times, dim], at `times`, [times], from `start`, [n, dim], on."""


class Infers(Solves):
    """Finds the parameters of its differential equation from observations, in several fits at once."""

    @abc.abstractmethod
    def parameters_found(self) -> Mapping[str, Tensor]:
        """Each parameter by name, [fits]."""

    @abc.abstractmethod
    def fitted(self, times: Tensor) -> Tensor:
        """States of each fit at `times`, [times]: [fits, times, dim], from the first state of its data on."""


CAPABILITIES: tuple[type, ...] = (
    Samples, LogProb, Invertible, Bounds, Energy, Scores, Encodes, Decodes, NextToken, Votes, Tags, RanksLines, Embeds, Classifies, Restores, Masks, Fills,
    Attends, Solves, Infers,
)  # fmt: skip
