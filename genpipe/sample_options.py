"""Whether samples will take the options of a block: asked before it is trained, not after. It only raises, so no training depends on it."""

from genpipe.capabilities import NextToken, RanksLines, Samples
from genpipe.params.project import RecipeParams
from genpipe.recipe import Recipe
from genpipe.sampling import decoding, lines
from genpipe.sampling.draw import checked_options


def require_options_of_samples(name: str, params: RecipeParams, make: type[Recipe] | None) -> None:
    """BadInput for an option of `sample.how` that the samples of a recipe will not take: said before it is trained, not after."""
    where = f"recipes.{name}.sample.how."
    if make is None or not params.sample.how:
        return
    if issubclass(make, Samples):
        checked_options(make.sample, params.sample.how, ("self", "n", "given"), where)
    elif issubclass(make, NextToken):
        checked_options(decoding.write, params.sample.how, ("model", "n", "given", "marks"), where)
    elif issubclass(make, RanksLines):
        checked_options(lines.search, params.sample.how, ("model", "x", "forbidden"), where)
