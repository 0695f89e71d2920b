"""Entity vectors trained on the triples of a bundle, by any model of PyKEEN."""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from kbench.data.files import cache_home
from kbench.errors import KbenchError, UsageError, first_line, nearest, one_line
from kbench.knowledge.base import Vectors
from kbench.knowledge.bundle import Bundle
from kbench.knowledge.link_prediction import Facts, HeldOut, held_out, ranked
from kbench.knowledge.writing import write_vectors

if TYPE_CHECKING:
    import torch

__all__ = ["Progress", "VectorSettings", "train_vectors"]

Progress: TypeAlias = Callable[[int, float], None]
"""Called after each epoch with its number, from 1, and its mean loss."""

_UNBOUND: Mapping[str, Mapping[str, Any]] = {"TransE": {"entity_constrainer": None}}
"""Entities of unit norm, PyKEEN's TransE, could not be as far apart as the margin asks."""

_LOGGERS = ("pykeen", "torch_max_mem", "class_resolver", "pystow")
_MOST = 1 << 32
"""Seeds, and held-out facts."""
_FIT_SAMPLE = 1000
_FIT_SCORES = 40_000_000
"""Bounds the quality figure: sampled triples, and their number times that of the entities."""
_TWIN = 50_000_000
"""Triples times epochs from which on nothing is trained twice: some half an hour of two cores."""
_RANKED_AMONG, _RANKED_LEAST = 50_000, 100
"""Of more entities fewer facts are ranked, as many as take the same time; at least so many."""
_NOT_OF_VECTORS = ("device", "ranked", "ranked_split")
_TRAIN_ON, _SPLITS = ("all", "train"), ("valid", "test")


def _setting(default: Any, help: str) -> Any:
    """Returns a field whose one line of help the command shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class VectorSettings:
    """How vectors are trained; the defaults suit a graph of some ten thousand entities.

    What is stored may be wider than ``dimension``: complex numbers are stored as real and
    imaginary parts, several representations of an entity side by side. The ``nssa`` loss is
    self-adversarial negative sampling (Sun et al., ICLR 2019).
    """

    model: str = _setting("TransE", "A model of PyKEEN, such as TransE, RotatE or ComplEx.")
    dimension: int = _setting(128, "Width of the embeddings; complex ones store twice that.")
    epochs: int = _setting(30, "Passes over all triples.")
    seed: int = _setting(0, "Of initial weights, order and corrupted triples.")
    batch_size: int = _setting(1024, "Triples of a step.")
    learning_rate: float = _setting(0.01, "Of Adam.")
    negatives: int = _setting(16, "Corrupted triples for each true one.")
    loss: str = _setting("nssa", "nssa, default (PyKEEN's for the model) or a loss of PyKEEN.")
    margin: float = _setting(9.0, "Of the nssa loss; about 6 suits 64 dimensions.")
    train_on: str = _setting(
        "all", "all facts, or train: without those that link prediction ranks."
    )
    ranked: int = _setting(
        2000,
        "Held-out facts that link prediction ranks at most, fewer among more than 50,000 "
        "entities; 0 for none.",
    )
    ranked_split: str = _setting("test", "Of a graph with splits: test, or valid to choose by.")
    device: str = _setting("auto", "auto, cpu, cuda or another device of torch.")

    def __post_init__(self) -> None:
        for name in ("dimension", "epochs", "batch_size", "negatives", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if not math.isfinite(self.margin):
            raise UsageError(f"margin is {self.margin}; expected a number")
        for name in ("seed", "ranked"):
            if not 0 <= getattr(self, name) < _MOST:
                given = getattr(self, name)
                raise UsageError(f"{name} is {given}; expected 0 to {_MOST - 1}")
        for name, known in (("train_on", _TRAIN_ON), ("ranked_split", _SPLITS)):
            if (given := getattr(self, name)) not in known:
                raise UsageError(f"{name} is {given!r}; expected {' or '.join(known)}")


def train_vectors(
    folder: Path | str,
    settings: VectorSettings | None = None,
    progress: Progress | None = None,
    twin_progress: Progress | None = None,
) -> Bundle:
    """Trains vectors on the triples of a bundle and stores them in it, replacing older ones.

    An entity without a triple gets no vector. The same bundle, settings, machine and number of
    threads give the same bytes. The state of the global random generators is left as it was.

    Vectors trained on all facts cannot be asked for facts that they have not seen. Their
    link prediction is that of a twin, trained the same way without the facts that are ranked and
    thrown away; that of vectors trained on ``train`` alone is their own. The card says which.
    The vectors are stored before, so whoever breaks it off has them.

    Args:
        folder: the bundle.
        settings: how.
        progress: called after each epoch.
        twin_progress: called after each epoch of the twin.

    Raises:
        UsageError: an unknown model, loss or device, or one that cannot be built.
        KbenchError: the bundle has no triples, or training diverged.
    """
    settings = settings or VectorSettings()
    bundle = Bundle(folder).checked()  # whose files are digested anew
    facts = np.asarray(bundle.triples)
    if not len(facts):
        raise KbenchError(f"{folder} has no triples to train vectors on; import some first")
    held = held_out(bundle, settings.ranked_split, _affordable(settings, bundle), settings.seed)
    if settings.train_on == "train" and not held:
        raise KbenchError(f"{folder} has no splits, and no fact is held out; train on all")
    known = facts[held.train] if held and settings.train_on == "train" else facts
    start = time.perf_counter()
    with _quiet(), _seeded(settings.seed):
        training = _Training(bundle, known, settings)
        losses = training.run(progress)
        vectors = training.vectors()
        seconds = time.perf_counter() - start
        fit = training.fit()
    linked = np.zeros(len(bundle), dtype=bool)
    linked[known[:, 0]] = linked[known[:, 2]] = True
    if not (np.isfinite(losses[-1]) and np.isfinite(vectors[linked]).all()):
        raise KbenchError(
            f"training {settings.model} diverged (last loss {losses[-1]}); lower the learning "
            f"rate, which is {settings.learning_rate}, and train again"
        )
    vectors[~linked] = np.nan
    origin = {
        **training.origin(),
        "final_loss": losses[-1],
        **fit,
        "seconds": round(seconds, 1),
    }

    def stored(figures: Mapping[str, Any]) -> Bundle:
        return write_vectors(Path(folder), vectors, {**origin, "link_prediction": figures})

    stored({"not_measured": "broken off"})  # a twin takes long, and what is trained is there
    return stored(_link_prediction(bundle, held, training, twin_progress))


def _affordable(settings: VectorSettings, bundle: Bundle) -> int:
    """Returns how many facts are ranked at most: fewer where each is ranked among very many."""
    most = settings.ranked * _RANKED_AMONG // max(1, len(bundle))
    return min(settings.ranked, max(_RANKED_LEAST, most))


def _link_prediction(
    bundle: Bundle, held: HeldOut | None, training: _Training, progress: Progress | None
) -> dict[str, Any]:
    """Ranks facts that were not trained on; returns figures, or why there are none."""
    settings, facts = training.settings, np.asarray(bundle.triples)
    if not settings.ranked:
        return {"not_measured": "not asked for (ranked is 0)"}
    if held is None:
        return {"not_measured": "no fact can be held out"}
    own = settings.train_on == "train"
    if not own and int(held.train.sum()) * settings.epochs > _TWIN:
        return {"not_measured": "training twice would take long; with train_on=train the vectors "
                "themselves are measured"}  # fmt: skip
    start = time.perf_counter()
    with _quiet(), _seeded(settings.seed):
        if not own:
            training = _Training(bundle, facts[held.train], settings)
            if not np.isfinite(training.run(progress)[-1]):
                return {"not_measured": "training diverged without the facts that are ranked"}
        figures = training.rank(held.ranked, facts)
    return {
        **figures,
        "of": "the vectors of this bundle"
        if own
        else "a twin of the vectors of this bundle, "
        "trained the same way without the facts of valid, test or the hold-out",
        "ranks": f"filtered, both sides, realistic, among {len(bundle)} entities",
        **held.about(facts),
        "seconds": round(time.perf_counter() - start, 1),
    }


class _Training:
    """A PyKEEN model of triples of a bundle, and what is done with it."""

    def __init__(self, bundle: Bundle, facts: Facts, settings: VectorSettings) -> None:
        import torch
        from pykeen.triples import CoreTriplesFactory

        self.settings = settings
        self._device = _device(settings.device)
        self._triples = torch.from_numpy(np.array(facts, dtype=np.int64))
        self._graph = CoreTriplesFactory.create(
            self._triples, num_entities=len(bundle), num_relations=len(bundle.relations)
        )
        self.model = _model(settings, self._graph).to(self._device)

    def run(self, progress: Progress | None) -> list[float]:
        """Trains by negative sampling (sLCWA); returns the mean loss of each epoch."""
        from pykeen.training import SLCWATrainingLoop
        from pykeen.training.training_loop import NonFiniteLossError
        from torch.optim import Adam
        from torch.optim.lr_scheduler import LinearLR

        settings = self.settings
        optimizer = Adam(self.model.get_grad_params(), lr=settings.learning_rate)
        loop = SLCWATrainingLoop(
            model=self.model,
            triples_factory=self._graph,
            optimizer=optimizer,
            lr_scheduler=LinearLR(optimizer, 1.0, 0.0, total_iters=settings.epochs),
            automatic_memory_optimization=False,  # it would train twice to try the batch size
            negative_sampler="basic",
            negative_sampler_kwargs={"num_negs_per_pos": settings.negatives},
        )
        # PyKEEN collects garbage after every epoch; walking all of torch each time takes longer
        # than an epoch on a small graph.
        gc.freeze()
        try:
            losses = loop.train(
                self._graph,
                num_epochs=settings.epochs,
                batch_size=min(settings.batch_size, len(self._triples)),
                drop_last=False,
                use_tqdm=False,
                use_tqdm_batch=False,
                callbacks=_callback(progress) if progress else None,
                pin_memory=self._device.type == "cuda",
            )
        except NonFiniteLossError:
            losses = [float("nan")]
        except Exception as cause:  # a model may fail in any way it likes
            raise KbenchError(
                f"PyKEEN could not train {settings.model} (batches of {settings.batch_size}): "
                f"{_reason(cause)}; try another model or a smaller batch"
            ) from cause
        finally:
            gc.unfreeze()
        return [float(loss) for loss in losses or ()]

    def rank(self, facts: Facts, known: Facts) -> dict[str, float]:
        """Ranks facts among all entities, without those that are known."""
        self.model.eval()
        return ranked(self.model, facts, known, 2 * self.settings.dimension)

    def vectors(self) -> Vectors:
        """Returns all representations of the entities, side by side. ``[entities, width]``."""
        import torch

        self.model.eval()
        parts: list[torch.Tensor] = []
        with torch.no_grad():
            for representation in self.model.entity_representations:
                values = representation(None)
                values = values.reshape(len(values), -1)
                parts += [values.real, values.imag] if values.is_complex() else [values]
            return cast("Vectors", torch.cat(parts, dim=1).float().cpu().numpy())

    def fit(self) -> dict[str, float | int]:
        """Ranks a seeded sample of the *training* triples among all entities, filtered.

        Says how well the vectors hold the facts they were given; it is no measure of link
        prediction, for which triples would have to be held out.
        """
        bound = max(10, _FIT_SCORES // self._graph.num_entities)
        size = min(_FIT_SAMPLE, bound, len(self._triples))
        chosen = np.random.default_rng(self.settings.seed).choice(
            len(self._triples), size=size, replace=False
        )
        known = self._triples.numpy()
        figures = self.rank(known[np.sort(chosen)], known)
        return {"fit_sample": size, **{f"fit_{name}": value for name, value in figures.items()}}

    def origin(self) -> dict[str, Any]:
        """What the card of the bundle says of the vectors."""
        import torch

        settings = {k: v for k, v in asdict(self.settings).items() if k not in _NOT_OF_VECTORS}
        settings["embedding_dimension"] = settings.pop("dimension")
        return {
            **settings,
            "model": type(self.model).__name__,
            "loss": type(self.model.loss).__name__,
            "optimizer": "Adam, learning rate falling linearly to 0",
            "triples": len(self._triples),
            "device": str(self._device),
            "threads": torch.get_num_threads(),
            "pykeen": version("pykeen"),
            "torch": torch.__version__,
        }


def _model(settings: VectorSettings, graph: Any) -> Any:
    from pykeen.models import model_resolver

    known = {cls.__name__: cls for cls in model_resolver.lookup_dict.values() if _fits(cls)}
    by_case = {name.lower(): cls for name, cls in known.items()}
    cls = by_case.get(settings.model.lower())
    if cls is None:
        raise UsageError(
            f"PyKEEN has no trainable model {settings.model!r}{nearest(settings.model, known)}"
        )
    try:
        return cls(
            triples_factory=graph,
            embedding_dim=settings.dimension,
            random_seed=settings.seed,
            **_loss(settings),
            **_UNBOUND.get(cls.__name__, {}),
        )
    except Exception as cause:  # models differ in what they need and in how they say so
        raise UsageError(
            f"PyKEEN cannot build {cls.__name__} from triples alone: {_reason(cause)}; "
            "choose another model"
        ) from cause


def _fits(cls: Any) -> bool:
    """Whether a model has entity vectors of a width to be chosen."""
    return "embedding_dim" in signature(cls.__init__).parameters


def _loss(settings: VectorSettings) -> dict[str, Any]:
    from pykeen.losses import loss_resolver

    if settings.loss == "default":
        return {}
    if settings.loss == "nssa":
        return {"loss": "nssa", "loss_kwargs": {"margin": settings.margin}}
    if settings.loss not in loss_resolver.lookup_dict:
        known = ["default", *loss_resolver.lookup_dict]
        raise UsageError(f"PyKEEN has no loss {settings.loss!r}{nearest(settings.loss, known)}")
    return {"loss": settings.loss}


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as cause:
        raise UsageError(f"device {name!r} is not there ({first_line(cause)}); try cpu") from cause
    return device


def _callback(progress: Progress) -> Any:
    from pykeen.training.callbacks import TrainingCallback

    class Report(TrainingCallback):  # type: ignore[misc]
        def post_epoch(self, epoch: int, epoch_loss: float, **kwargs: Any) -> None:
            progress(epoch, epoch_loss)

    return Report()


def _reason(cause: Exception) -> str:
    return one_line(cause)[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps PyKEEN's warnings and logs out of ours, and its folders out of the user's home."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    homes = {"PYKEEN_HOME": cache_home() / "pykeen", "PYSTOW_HOME": cache_home() / "pystow"}
    with warnings.catch_warnings(), _environment({k: str(v) for k, v in homes.items()}):
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            import pykeen.constants  # noqa: F401  (makes its folders when first imported)

            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables that the user has not set, for a while."""
    missing = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds every generator PyKEEN draws from, and puts their states back."""
    import torch

    numpy_state: Any = np.random.get_state()
    python_state = random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
