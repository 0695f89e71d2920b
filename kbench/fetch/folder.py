"""A data set in the data folder: what is there of it, and what is missing brought whole.

What comes is gathered beside, in ``.kbench-fetch/NAME``, and only what is complete and right is
moved: a new folder at once, files that are missing in an old one each at once. What was found is
remembered in the folder (``.fetched.json``), so that a copy can be compared later, even where
nobody says what the digest should be.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kbench.data.files import is_file, is_folder, write_json
from kbench.errors import first_line
from kbench.fetch.listing import Known, Part, Published, inside, readable
from kbench.fetch.transfer import FetchError, Found, Transfer, digest, no_room, part_of
from kbench.fetch.unpacking import unpack

__all__ = [
    "RECORD",
    "Brought",
    "State",
    "Step",
    "address",
    "fetch",
    "is_called",
    "kept",
    "place",
    "plan",
    "remembered",
    "there",
]

RECORD = ".fetched.json"
"""What is remembered beside the data, of how they were found."""
_STAGE = ".kbench-fetch"
_FILES, _ARCHIVES = "files", "archives"


class State(StrEnum):
    """How a part stands before it is fetched."""

    RIGHT = "there, as recorded"
    AS_FETCHED = "there, as it was fetched"
    UNKNOWN = "there, content not known"
    CHANGED = "there, changed since it was fetched"
    WRONG = "there, and another"
    MISSING = "to fetch"


_OTHER = (State.CHANGED, State.WRONG)
"""What gives way only where that is asked for."""


@dataclass(frozen=True)
class Step:
    """A part and how it stands.

    Attributes:
        part: what is fetched.
        state: how it stands.
        kept: bytes of it that came before.
    """

    part: Part
    state: State
    kept: int = 0


@dataclass(frozen=True)
class Brought:
    """A file that was brought.

    Attributes:
        path: in the folder.
        found: what it turned out to be.
        recorded: whether that is what is recorded; else nobody says what it should be.
    """

    path: str
    found: Found
    recorded: bool


def place(root: Path, published: Published) -> Path:
    """Returns the folder of a data set: an old one however it is spelled, else a new one."""
    with suppress(OSError):
        for child in sorted(root.iterdir()):
            if is_called(child, published) and child.is_dir():
                return child
    return root / published.folder


def is_called(folder: Path, published: Published) -> bool:
    """Whether a folder has the name of that of a data set, however it is spelled."""
    plain = str.maketrans("", "", "-_")
    name, wanted = (each.lower().translate(plain) for each in (folder.name, published.folder))
    return name == wanted


def there(root: Path, published: Published) -> tuple[int, int]:
    """Returns how many parts are there, by their names alone, and how many there are."""
    folder = place(root, published)
    return sum(_present(folder, part) for part in published.parts), len(published.parts)


def plan(root: Path, published: Published) -> list[Step]:
    """Returns how each part stands; what is there is read and compared."""
    folder, stage = place(root, published), _stage(root, published)
    memory = remembered(folder)
    steps = []
    for number, part in enumerate(published.parts):
        came = part_of(_staged(stage, number, part))
        size = came.stat().st_size if came.exists() else 0
        steps.append(Step(part, _state(folder, part, published.known, memory), size))
    return steps


def remembered(folder: Path) -> Mapping[str, Found]:
    """Returns what was found of each file when it was fetched; nothing where nothing was."""
    try:
        value = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {
            str(path): Found(int(each["bytes"]), str(each["sha256"]))
            for path, each in value["files"].items()
            if inside(str(path))  # a folder of a stranger may name any
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def kept(root: Path, published: Published) -> int:
    """Returns how many bytes of it have come without being whole."""
    parts = _stage(root, published).rglob("*.part")
    return sum(path.stat().st_size for path in parts)


def address(part: Part) -> str:
    """Returns the address of a part; of the hub that which ``HF_ENDPOINT`` says.

    Raises:
        FetchError: it lies on the hub, and ``HF_HUB_OFFLINE`` is set, or its name cannot be one.
    """
    if part.url:
        return part.url
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise FetchError(f"{part.address}: is not fetched: HF_HUB_OFFLINE is set; unset it")
    try:
        return hf_hub_url(part.hub, part.file, repo_type="dataset", revision=part.revision)
    except ValueError as cause:
        raise FetchError(f"{part.address}: is no name of the hub ({first_line(cause)})") from None


def fetch(
    root: Path,
    published: Published,
    how: Transfer,
    begin: Callable[[Part], None] = lambda part: None,
    replacing: bool = False,
) -> list[Brought]:
    """Brings what is missing; returns the files that are new.

    Args:
        root: the data folder.
        published: the data set.
        how: it is transferred.
        begin: is told each part before it comes.
        replacing: whether files that are there and are others give way.

    Raises:
        FetchError: it may not be fetched, does not come, is another, or there is no room.
    """
    if not published.parts:
        raise FetchError(f"{published.name} is not fetched: {published.by_hand}")
    with _locked(root, published) as stage:
        folder, steps = place(root, published), plan(root, published)
        if not replacing:
            _check_others(folder, steps)
        todo = {n: step for n, step in enumerate(steps) if step.state in (State.MISSING, *_OTHER)}
        if not todo:
            return []
        _check_room(root, todo.values())
        brought: list[Brought] = []
        with _full_disk(root):
            for number, step in todo.items():
                begin(step.part)
                brought += _bring(stage, number, step.part, published, how)
            if not replacing:
                _check_theirs(folder, brought)
            _settle(folder, stage / _FILES, brought)
        shutil.rmtree(stage)
    return brought


def _check_others(folder: Path, steps: Iterable[Step]) -> None:
    """Refuses before anything comes what would give way to it.

    Raises:
        FetchError: there is such a file.
    """
    for step in steps:
        if step.state in _OTHER:
            path = folder / (step.part.to or next(iter(step.part.unpack.values())))
            problem = "is another file than the one that is recorded"
            if step.state == State.CHANGED:
                problem = "was changed since it was fetched"
            raise FetchError(f"{path}: {problem}; move it away, or give --replace")


def _check_theirs(folder: Path, brought: Iterable[Brought]) -> None:
    """Refuses what an archive holds that is there already, and another.

    Raises:
        FetchError: there is such a file.
    """
    for each in brought:
        path = folder / each.path
        if is_file(path) and digest(path) != each.found:
            raise FetchError(
                f"{path}: is another file than the one that came; move it away, or give --replace; "
                "what came is kept"
            )


def _stage(root: Path, published: Published) -> Path:
    return root / _STAGE / published.name


def _staged(stage: Path, number: int, part: Part) -> Path:
    """Where a part is gathered."""
    return stage / _FILES / part.to if part.to else stage / _ARCHIVES / f"{number}-{part.name}"


@contextmanager
def _locked(root: Path, published: Published) -> Iterator[Path]:
    """Yields the folder where it is gathered; nobody else writes to it, or to that of the data.

    Once nothing is gathered in it, it is taken away.
    """
    stage = _stage(root, published)
    lock = stage.with_name(f"{published.folder.replace('/', '-')}.lock")
    held = FileLock(lock, timeout=0)
    try:
        stage.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise FetchError(f"{stage}: another kbench fetch is at it; wait for that") from None
    except OSError as cause:
        raise FetchError(f"{stage}: cannot be written ({first_line(cause)})") from None
    try:
        yield stage
    finally:
        if not any(path.is_file() for path in stage.rglob("*")):
            shutil.rmtree(stage, ignore_errors=True)
            with suppress(OSError):  # of another data set something is kept there
                lock.unlink()
                lock.parent.rmdir()
        held.release()


def _present(folder: Path, part: Part) -> bool:
    if part.to:
        return is_file(folder / part.to)
    return all(_target_there(folder, target) for target in part.unpack.values())


def _target_there(folder: Path, target: str) -> bool:
    if target and not target.endswith("/"):
        return is_file(folder / target)
    inner = folder / target
    return is_folder(inner) and any(not path.name.startswith(".") for path in inner.iterdir())


def _state(
    folder: Path, part: Part, known: Mapping[str, Known], memory: Mapping[str, Found]
) -> State:
    if not _present(folder, part):
        return State.MISSING
    if not part.to:
        return _unpacked_state(folder, part, known, memory)
    size = (folder / part.to).stat().st_size
    if part.bytes is not None and size != part.bytes:
        return State.WRONG
    if part.sha256:
        right = digest(folder / part.to).sha256 == part.sha256
        return State.RIGHT if right else State.WRONG
    if part.to in memory:
        right = digest(folder / part.to) == memory[part.to]
        return State.AS_FETCHED if right else State.CHANGED
    return State.UNKNOWN


def _unpacked_state(
    folder: Path, part: Part, known: Mapping[str, Known], memory: Mapping[str, Found]
) -> State:
    """How the files of an archive stand: one that is missing or another, and all are."""
    targets = tuple(part.unpack.values())
    expected = {path: (each.bytes, each.sha256) for path, each in known.items()}
    sure = {path: content for path, content in expected.items() if _belongs(path, targets)}
    fetched = {
        path: (each.bytes, each.sha256)
        for path, each in memory.items()
        if _belongs(path, targets) and path not in sure
    }
    for path, content in {**fetched, **sure}.items():
        if not is_file(folder / path):
            return State.MISSING
        found = digest(folder / path)
        if (found.bytes, found.sha256) != content:
            return State.WRONG if path in sure else State.CHANGED
    if fetched:
        return State.AS_FETCHED
    return State.RIGHT if sure else State.UNKNOWN


def _belongs(path: str, targets: tuple[str, ...]) -> bool:
    return any(
        path == target or ((not target or target.endswith("/")) and path.startswith(target))
        for target in targets
    )


def _check_room(root: Path, todo: Iterable[Step]) -> None:
    """Refuses before anything comes that there is no room for, as far as sizes are known."""
    size = sum((step.part.size or 0) - min(step.kept, step.part.size or 0) for step in todo)
    free = shutil.disk_usage(root).free
    if size > free:
        raise FetchError(
            f"{root}: {readable(size)} are to come and {readable(free)} are free; make room, or "
            "give another folder by --data"
        )


@contextmanager
def _full_disk(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise no_room(root, error, "what came is kept") from None
        where = error.filename or root
        raise FetchError(f"{where}: cannot be written ({first_line(error)})") from None


def _bring(
    stage: Path, number: int, part: Part, published: Published, how: Transfer
) -> list[Brought]:
    """Brings a part, unpacks it, and compares what is known of what was in it."""
    path = _staged(stage, number, part)
    found = digest(path) if path.exists() else None  # it came whole before something else broke
    if found is None or (part.sha256 and found.sha256 != part.sha256):
        path.unlink(missing_ok=True)
        found = how.bring(address(part), path, part.bytes, part.sha256)
    if part.to:
        return [Brought(part.to, found, part.sha256 is not None)]
    with tempfile.TemporaryDirectory(dir=stage, prefix="unpacked-") as unpacked:
        folder = Path(unpacked)
        try:
            paths = unpack(path, part.unpack, folder)
            brought = [_compared(folder, each, published) for each in paths]
        except FetchError:
            path.unlink()  # else the same command would come to the same end
            raise
        for each in paths:
            _move(folder / each, stage / _FILES / each)
    return [_sure(each, part) for each in brought]


def _compared(folder: Path, path: str, published: Published) -> Brought:
    found, known = digest(folder / path), published.known.get(path)
    if known and (found.bytes, found.sha256) != (known.bytes, known.sha256):
        raise FetchError(
            f"{published.name}: {path} of the archive has wrong bytes: SHA-256 {found.sha256}, not "
            f"{known.sha256} as recorded; nothing of it was kept"
        )
    return Brought(path, found, known is not None)


def _sure(brought: Brought, part: Part) -> Brought:
    """What is in an archive with the recorded digest is as recorded too."""
    return replace(brought, recorded=brought.recorded or part.sha256 is not None)


def _settle(folder: Path, gathered: Path, brought: Sequence[Brought]) -> None:
    """Moves what is whole to where it belongs, and remembers what it is."""
    memory: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        memory = dict(json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"])
    for each in brought:
        state = "as recorded" if each.recorded else "found, nothing is recorded"
        memory[each.path] = {**vars(each.found), "state": state}
    record = {"files": dict(sorted(memory.items()))}
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(gathered / RECORD, record)
        os.replace(gathered, folder)
        return
    for each in brought:
        _move(gathered / each.path, folder / each.path)
    write_json(folder / RECORD, record)


def _move(source: Path, target: Path) -> None:
    """Moves a file in one step, to another disk too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
        os.close(handle)
        try:
            shutil.copyfile(source, name)
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
