"""All judges: a new one is a function in a file of this folder and a row here."""

from genpipe.capabilities import (
    Classifies,
    Decodes,
    Embeds,
    Encodes,
    LogProb,
    NextToken,
    Samples,
    Tags,
)
from genpipe.evaluation import (
    classes,
    codes,
    couplets,
    density,
    frechet,
    generation,
    likelihood,
    reading,
    retrieval,
    tagging,
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
    Judge((NextToken,), ("stream", "pairs", "tagged"), generation.judge_next_token),
    Judge((Encodes, Decodes), ("images",), codes.judge_codes),
    Judge((Samples,), ("images",), frechet.judge_images, any_split=False),
    Judge((Tags,), ("pairs",), couplets.judge_couplets),
)
