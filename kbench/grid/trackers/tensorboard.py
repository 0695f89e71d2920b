"""TensorBoard: a folder of events for each run, in ``runs/``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from kbench.grid.plan import Cell
from kbench.grid.tracker import Record, Tracker, record_of
from kbench.store import Result

__all__ = ["TensorBoard"]


class TensorBoard(Tracker):
    """Figures, curves and choices of each run, for ``tensorboard --logdir runs``."""

    def __init__(self) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._open, self._event = EventFileWriter, event_pb2.Event
        self._summary, self._tensor = summary_pb2, tensor_pb2.TensorProto
        self._text = types_pb2.DT_STRING
        self._folder = Path("runs")

    def grid(self, cells: Sequence[Cell], out: Path) -> None:
        self._folder.mkdir(exist_ok=True)

    def result(self, result: Result) -> None:
        folder = self._folder / f"{result.spec.method}-{result.id[:12]}"
        with closing(self._open(str(folder))) as writer:
            for step, value in self._values(record_of(result)):
                summary = self._summary.Summary(value=[value])
                writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def _values(self, record: Record) -> Iterator[tuple[int, Any]]:
        value, metadata = self._summary.Summary.Value, self._summary.SummaryMetadata
        table = "\n".join(f"| {name} | {text} |" for name, text in record.parameters.items())
        shown = f"{record.name}\n\n| | |\n|---|---|\n{table}".encode()
        plugin = metadata(plugin_data=metadata.PluginData(plugin_name="text"))
        tensor = self._tensor(dtype=self._text, string_val=[shown])
        yield 0, value(tag="run", metadata=plugin, tensor=tensor)
        for name, figure in record.metrics.items():
            yield 0, value(tag=name, simple_value=figure)
        for name, figures in record.curves.items():
            for epoch, figure in enumerate(figures, 1):
                yield epoch, value(tag=name, simple_value=figure)
