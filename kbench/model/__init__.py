"""Backbone, language model, heads, downstream model; what keeps it frozen, and what it says."""

from kbench.model.attention import AttentionCall, LayerAttention
from kbench.model.backbone import Backbone, BackboneForm, BackboneSize
from kbench.model.decoder import Decoder
from kbench.model.downstream import DownstreamModel
from kbench.model.encoder import Encoder
from kbench.model.episodes import EpisodeHead
from kbench.model.freezing import digest, dropout, rewritten, watched
from kbench.model.frozen_reading import FixedData, FrozenReader, Reading, ReadStates
from kbench.model.heads import Head
from kbench.model.language_model import LanguageModel, SlotSource
from kbench.model.linear_maps import LinearMap
from kbench.model.statements import StatementHead

__all__ = [
    "AttentionCall",
    "Backbone",
    "BackboneForm",
    "BackboneSize",
    "Decoder",
    "DownstreamModel",
    "Encoder",
    "EpisodeHead",
    "FixedData",
    "FrozenReader",
    "Head",
    "LanguageModel",
    "LayerAttention",
    "LinearMap",
    "ReadStates",
    "Reading",
    "SlotSource",
    "StatementHead",
    "digest",
    "dropout",
    "rewritten",
    "watched",
]
