"""What is called otherwise in other tools for evaluation, for those who come from them."""

from __future__ import annotations

__all__ = ["elsewhere"]

_NAMES = {
    "model": "it is `--backbone` here: a name, a folder or a hub id",
    "model-args": "a folder or hub id is given to `--backbone`, how it is held to `--weights`",
    "pretrained": "it is `--backbone` here",
    "tasks": "it is `--task` here, a comma list too",
    "methods": "it is `--method` here, a comma list too",
    "seeds": "it is `--seed` here, a comma list too",
    "num-fewshot": "demonstrations are an option of the task: `--set task.NAME.shots=5`",
    "fewshot-seed": "demonstrations are drawn by `--seed`",
    "output-path": "it is `--out` here",
    "output-dir": "it is `--out` here",
    "log-samples": "predictions are always stored, beside each result",
    "resume": "the same command goes on from what is stored",
    "use-cache": "what is stored is never run again",
    "cache-requests": "what is stored is never run again",
    "batch-size": "of evaluation it is `--evaluation-batch`; of training it is an option of the "
    "tuning or method, such as `--set tuning.full.batch_size=16`",
    "max-batch-size": "batches are made small where memory is short",
    "trust-remote-code": "code that comes with a model is never run here",
    "apply-chat-template": "it is `--chat` here",
    "include-path": "a task of your own is a file (docs/custom-data.md) or an installed plugin",
    "gen-kwargs": "answers in several words are greedy; see `--set task.NAME.answers=open`",
    "predict-only": "metrics cost nothing, and `kbench score` makes them again",
    "verbosity": "it is `-v`, or `-q`",
    "write-out": "`kbench show TASK` shows examples",
    "device-map": "it is `--spread` here",
    "load-in-8bit": "it is `--weights 8bit` here",
    "load-in-4bit": "it is `--weights 4bit` here",
    "lr": "say of what: `--set tuning.full.learning_rate=1e-4`",
    "learning-rate": "say of what: `--set tuning.full.learning_rate=1e-4`",
    "epochs": "say of what: `--set tuning.full.epochs=3`",
}


def elsewhere(option: str) -> str:
    """Returns where to find what an option of another tool does; empty if it is not known.

    Args:
        option: as it was typed, with its hyphens.
    """
    return _NAMES.get(option.lstrip("-").replace("_", "-").lower(), "")
