"""What a task is made of; files from outside read strictly, our own written whole."""

from kbench.data.card import Size, TaskCard
from kbench.data.examples import (
    NONE_OF_THE_ABOVE,
    Candidate,
    Example,
    Label,
    Mention,
    Role,
    Split,
    digest_examples,
    outermost,
)
from kbench.data.likelihoods import SCORERS, Likelihoods
from kbench.data.predictions import Answers, Predictions, is_right
from kbench.data.prompts import Lists, Options, Prompt, Verdicts

__all__ = [
    "NONE_OF_THE_ABOVE",
    "SCORERS",
    "Answers",
    "Candidate",
    "Example",
    "Label",
    "Likelihoods",
    "Lists",
    "Mention",
    "Options",
    "Predictions",
    "Prompt",
    "Role",
    "Size",
    "Split",
    "TaskCard",
    "Verdicts",
    "digest_examples",
    "is_right",
    "outermost",
]
