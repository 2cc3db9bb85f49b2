"""All judges: a new one is a function in a file of this folder and a row here."""

from genpipe.capabilities import (
    Bounds,
    Classifies,
    Decodes,
    Embeds,
    Encodes,
    Energy,
    LogProb,
    NextToken,
    Samples,
    Tags,
)
from genpipe.evaluation import (
    bounds,
    classes,
    codes,
    couplets,
    density,
    energies,
    found_classes,
    frechet,
    generation,
    kernel,
    likelihood,
    neighbours,
    pixels,
    plane,
    probe,
    reading,
    retrieval,
    tagging,
    transport,
)
from genpipe.evaluation.judge import Judge

# Written out, row by row: the code that an evaluation depends on is read from here.
JUDGES = (
    Judge((Classifies,), ("images", "tagged"), classes.judge_classes),
    Judge((Tags,), ("tagged",), tagging.judge_tags),
    Judge((NextToken,), ("passages",), reading.judge_reading),
    Judge((Embeds,), ("groups",), retrieval.judge_retrieval),
    Judge((LogProb,), ("images",), likelihood.bits_per_dim),
    Judge((LogProb,), ("points",), density.judge_density),
    Judge((Energy,), ("points",), energies.judge_energy),
    Judge((Bounds,), ("images", "points"), bounds.judge_bounds),
    Judge((NextToken,), ("stream", "pairs", "tagged"), generation.judge_next_token),
    Judge((Encodes, Decodes), ("images",), codes.judge_codes),
    Judge((Encodes,), ("images", "points"), probe.judge_probe),
    Judge((Samples,), ("points",), plane.judge_points, any_split=False),
    Judge((Samples,), ("images",), frechet.judge_images, any_split=False),
    Judge((Samples,), ("images",), kernel.judge_kernel, any_split=False),
    Judge((Samples,), ("images",), neighbours.judge_neighbours, any_split=False),
    Judge((Samples,), ("images",), found_classes.judge_found_classes, any_split=False),
    Judge((Samples,), ("images",), transport.judge_transport, any_split=False),
    Judge((Samples,), ("images",), pixels.judge_pixels, any_split=False),
    Judge((Tags,), ("pairs",), couplets.judge_couplets),
)
