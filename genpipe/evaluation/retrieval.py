"""Whether the nearest texts have the same meaning."""

import torch

from genpipe.evaluation.judge import NotMeasured, Trial
from genpipe.sampling.draw import in_chunks

NEAREST = 5


def judge_retrieval(trial: Trial) -> dict[str, float]:
    """Share of texts with one of the same group among the 1 and the 5 nearest, by cosine; and of the nearest at random.

    Features are computed in chunks of the split, so that padding is that of the chunk. Texts that are alone in their group
    are compared with but not counted.
    """
    parts = [(in_chunks(trial.recipe.embed, x), x["groups"]) for x in trial.data.split(trial.split)]
    features = torch.nn.functional.normalize(torch.cat([part[0] for part in parts]).double())
    groups = torch.cat([part[1] for part in parts])
    number = len(groups)
    others = (groups.unsqueeze(0) == groups.unsqueeze(1)).sum(1) - 1
    counted = others > 0
    if not counted.any() or number <= NEAREST:
        raise NotMeasured(
            f"top_1: the split {trial.split} has no two texts of one group, or at most {NEAREST} texts"
        )
    nearest = (features @ features.T).fill_diagonal_(-torch.inf).topk(NEAREST).indices
    hits = (groups[nearest] == groups.unsqueeze(1))[counted]
    return {
        "top_1": float(hits[:, 0].double().mean()),
        "top_5": float(hits.any(1).double().mean()),
        "top_1_random": float(others[counted].double().mean()) / (number - 1),
    }
