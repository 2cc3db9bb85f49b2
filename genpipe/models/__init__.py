"""The one list of recipes: file name → class."""

from genpipe.models.classifier import Classifier
from genpipe.models.couplet import Couplet
from genpipe.models.nice import NICE
from genpipe.models.ogan import OGAN
from genpipe.recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {"classifier": Classifier, "couplet": Couplet, "nice": NICE, "ogan": OGAN}
