"""Full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tuning import Tuning

if TYPE_CHECKING:
    from kbench.model import DownstreamModel

__all__ = ["FullTuning"]

_PUBLISHED = {
    # Wiki-ET, Wiki80 and EntityQuestions of the map-tuning release (bert-base-uncased).
    Family.TYPING: Recipe(learning_rate=1e-5, batch_size=64, epochs=2),
    Family.RELATION: Recipe(learning_rate=5e-5, batch_size=32, epochs=15),
    Family.QUESTION: Recipe(learning_rate=1e-4, batch_size=64, epochs=5),
}


@final
class FullTuning(Tuning):
    """Trains every weight but the word embeddings.

    The map-tuning release reads word embeddings from a copy made before training, so its "full
    fine-tuning" never trains them; the published models are of that kind, and a map into the
    embedding space stays valid for a tuned model only so. They stay frozen here, and with them
    an output matrix tied to them. ``train_embeddings: true`` trains them.
    """

    revision = "1"
    defaults: ClassVar[Mapping[str, Any]] = {"train_embeddings": False}

    def recipe(self, family: Family) -> Recipe:
        return _PUBLISHED[family]

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        model.requires_grad_(True)
        if not options["train_embeddings"]:
            model.lm.word_embeddings.requires_grad_(False)
