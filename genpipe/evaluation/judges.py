"""All judges: a new one is a file of this folder and a row here."""

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

JUDGES = (
    classes.JUDGE,
    tagging.JUDGE,
    reading.JUDGE,
    retrieval.JUDGE,
    likelihood.JUDGE,
    density.JUDGE,
    generation.JUDGE,
    codes.JUDGE,
    frechet.JUDGE,
    couplets.JUDGE,
)
