"""Backbone, encoder, heads, downstream model; what keeps it frozen; what it says, read once."""

from kbench.model.backbone import Backbone
from kbench.model.downstream import DownstreamModel
from kbench.model.encoder import Encoder, SlotSource
from kbench.model.freezing import digest, dropout, rewritten
from kbench.model.frozen_reading import FixedData, FrozenReader, Reading, ReadStates
from kbench.model.heads import Head

__all__ = [
    "Backbone",
    "DownstreamModel",
    "Encoder",
    "FixedData",
    "FrozenReader",
    "Head",
    "ReadStates",
    "Reading",
    "SlotSource",
    "digest",
    "dropout",
    "rewritten",
]
