"""How weights move: recipe, loop, steps; and the tunings of a model."""

from kbench.encoding import Data, Examples
from kbench.training.loop import History, Progress, train
from kbench.training.recipe import Recipe
from kbench.training.steps import Weigh
from kbench.training.tuning import Tuning

__all__ = ["Data", "Examples", "History", "Progress", "Recipe", "Tuning", "Weigh", "train"]
