"""A file brought over HTTPS: whole, and the one that was meant, or not at all.

What has come is kept in ``NAME.part`` until all is there and its digest was compared; then it gets
its name. A part is gone on with where the server can (``Range``), and where it is certain that it
is of the same file: the server's own mark of it (``If-Range``), or the digest that it must have.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from kbench import __version__
from kbench.data.files import write_json
from kbench.errors import KbenchError, first_line
from kbench.fetch.listing import is_loopback, reachable, readable

__all__ = ["FetchError", "Found", "Transfer", "digest", "no_room", "part_of"]

_BLOCK = 1 << 16
_LARGEST = 64 << 30
"""Bytes after which a file of which nobody says the size is given up."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class FetchError(KbenchError):
    """Something that cannot be fetched, or is not what it should be."""


class _Broken(Exception):
    """A transfer that broke off, and may succeed when it is tried again."""


class _Again(Exception):
    """A transfer that has to begin anew: what is kept is of another file."""


@dataclass(frozen=True)
class Found:
    """What a file turned out to be.

    Attributes:
        bytes: its size.
        sha256: its digest.
    """

    bytes: int
    sha256: str


class _Redirects(HTTPRedirectHandler):
    """Follows to https alone; to http only on this very machine, if it began there."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        own = is_loopback(newurl) and is_loopback(req.full_url)
        if urlsplit(newurl).scheme != "https" and not own:
            fp.close()
            raise FetchError(
                f"{req.full_url}: leads on to {newurl}, which is not https: not followed; get the "
                "file by hand if you trust it"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    opener = build_opener(_Redirects)
    opener.addheaders = [("User-Agent", f"kbench/{__version__}"), ("Accept-Encoding", "identity")]
    return opener


@dataclass(frozen=True)
class Transfer:
    """How files are brought.

    Attributes:
        timeout: seconds of silence after which a server is given up.
        pauses: seconds before each new try after a break; a try that brought something does not
            count.
        watch: is told now and then how much of how much is there, where that is known.
    """

    timeout: float = 60.0
    pauses: Sequence[float] = (1.0, 4.0, 10.0)
    watch: Callable[[int, int | None], None] | None = None

    def bring(self, url: str, path: Path, size: int | None, sha256: str | None) -> Found:
        """Brings a file.

        Args:
            url: its address.
            path: where it goes; there is nothing yet.
            size: what it must have, if that is known.
            sha256: likewise.

        Raises:
            FetchError: it is not there, is another, or does not come; in one line, what to do.
        """
        if not reachable(url):
            raise FetchError(f"{url}: is not https")
        path.parent.mkdir(parents=True, exist_ok=True)
        one = _One(self, url, path, size, sha256)
        left = list(self.pauses)
        while True:
            before = one.kept
            try:
                return one.attempt()
            except _Again:
                if one.anew:
                    problem = "ends too early, or sends another piece than it was asked for"
                    raise FetchError(one.told(problem)) from None
                one.discard()
            except _Broken as broken:
                if one.kept > before:
                    left = list(self.pauses)
                if not left:
                    raise FetchError(one.told(str(broken))) from None
                time.sleep(left.pop(0))


class _One:
    """The transfer of one file."""

    def __init__(
        self, how: Transfer, url: str, path: Path, size: int | None, sha256: str | None
    ) -> None:
        self.how, self.url, self.path, self.size, self.sha256 = how, url, path, size, sha256
        self.part = part_of(path)
        self.note = path.with_name(f"{path.name}.part.json")
        self.anew = False

    @property
    def kept(self) -> int:
        """Bytes that came before."""
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        """Forgets what came before."""
        self.anew = True
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def told(self, problem: str) -> str:
        """What is said when it does not come."""
        kept = f"; {readable(self.kept)} are kept in {self.part}" if self.kept else ""
        return f"{self.url}: {problem}{kept}; run the same command again, it goes on from there"

    def attempt(self) -> Found:
        """Asks for the file, or for the rest of it, and compares it with what it must be.

        Raises:
            FetchError: it is not there, or is another.
            _Broken: it broke off.
            _Again: it has to begin anew.
        """
        start, mark = self._resumed()
        if start and start == self.size and self.sha256:
            return self._compared(start)
        with self._answer(start, mark) as answer:
            start = self._place(answer, start)
            total = self._total(answer, start)
            self._check(answer, total, start)
            write_json(self.note, {"url": self.url, "mark": _mark(answer.headers)})
            self._copy(answer, start, total)
        return self._compared(start)

    def _resumed(self) -> tuple[int, str]:
        """How much is there of the same file, and the server's mark of it."""
        start, mark = self.kept, ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            mark = str(note["mark"]) if note["url"] == self.url else ""
        certain = bool(mark or self.sha256) and (self.size is None or start <= self.size)
        return (start, mark) if start and certain else (0, "")

    @contextmanager
    def _answer(self, start: int, mark: str) -> Iterator[HTTPResponse]:
        request = Request(self.url)
        if start:
            request.add_header("Range", f"bytes={start}-")
            if mark:
                request.add_header("If-Range", mark)
        try:
            answer = _opener().open(request, timeout=self.how.timeout)
        except HTTPError as error:
            with error:
                raise self._refused(error.code) from None
        except (URLError, OSError, HTTPException) as error:
            raise self._unreached(error) from None
        with answer:
            yield answer

    def _refused(self, code: int) -> Exception:
        if code == 416:
            return _Again()
        if code in (404, 410):
            return FetchError(
                f"{self.url}: is not there (any more: HTTP {code}); look for where it was moved to "
                "on the page of its publishers"
            )
        if code in (401, 403):
            return FetchError(f"{self.url}: may not be read (HTTP {code}); get it by hand")
        if code == 429 or code >= 500:
            return _Broken(f"the server cannot serve it now (HTTP {code})")
        if code // 100 == 3:
            return FetchError(f"{self.url}: leads on in a circle, or to what is not https")
        return FetchError(f"{self.url}: the server answers HTTP {code}")

    def _unreached(self, error: Exception) -> Exception:
        cause = error.reason if isinstance(error, URLError) else error
        host = urlsplit(self.url).hostname
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError(f"{self.url}: {host} does not prove who it is ({first_line(cause)})")
        if isinstance(cause, socket.gaierror):
            return FetchError(
                f"{self.url}: {host} is not found ({first_line(cause)}); are you offline? Fetch it "
                "where there is a network, and take the folder along"
            )
        if isinstance(cause, TimeoutError):
            return _Broken(f"no answer for {self.how.timeout:g} s")
        if isinstance(cause, BaseException):
            return _Broken(f"cannot be reached ({first_line(cause)})")
        return _Broken(f"cannot be reached ({cause})")

    def _place(self, answer: HTTPResponse, start: int) -> int:
        """Where what comes now belongs: behind what is there, or at the beginning."""
        if answer.status != 206:
            return 0
        given = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if not start or given is None or int(given[1]) != start:
            raise _Again
        return start

    def _total(self, answer: HTTPResponse, start: int) -> int | None:
        length = answer.headers.get("Content-Length", "")
        return start + int(length) if length.isascii() and length.isdigit() else None

    def _check(self, answer: HTTPResponse, total: int | None, start: int) -> None:
        """Looks at what is promised before any of it is taken."""
        packed = answer.headers.get("Content-Encoding", "identity").lower()
        if packed not in ("", "identity"):
            raise self._lies(f"packs it ({packed}) though asked not to")
        if self.size is not None and total is not None and total != self.size:
            if start:
                raise _Again
            raise FetchError(
                f"{self.url}: has {total:,} bytes, not the {self.size:,} that are recorded: it was "
                "changed, or the server lies about its length; nothing was taken"
            )
        page = answer.headers.get_content_type() in ("text/html", "application/xhtml+xml")
        if page and self.sha256 is None:
            raise FetchError(
                f"{self.url}: is a web page, not a file: it was moved, or a network wants a log-in "
                "first"
            )
        rest = (total if total is not None else self.size or start) - start
        free = shutil.disk_usage(self.part.parent).free
        if rest > free:
            raise FetchError(
                f"{self.part.parent}: {readable(rest)} are to come and {readable(free)} are free; "
                "make room, or give another folder"
            )

    def _copy(self, answer: HTTPResponse, start: int, total: int | None) -> None:
        """Writes what comes, and sees that it is neither less nor more than it should be."""
        end = self.size if self.size is not None else total
        done = start
        with self._opened(start) as file:
            while done != total and (block := self._read(answer)):
                done += len(block)
                if done > (_LARGEST if end is None else end):
                    file.close()
                    self.discard()
                    raise self._lies(f"sends more than {end or _LARGEST:,} bytes")
                self._write(file, block)
                if self.how.watch:
                    self.how.watch(done, end)
            self._write(file, b"", flush=True)
        if end is not None and done < end:
            raise _Broken(f"ends after {done:,} of {end:,} bytes")

    @contextmanager
    def _opened(self, start: int) -> Iterator[IO[bytes]]:
        try:
            file = self.part.open("ab" if start else "wb")
        except OSError as error:
            raise self._unwritten(error) from None
        try:
            yield file
        finally:
            with suppress(OSError):  # a full disk is said once
                file.close()

    def _read(self, answer: HTTPResponse) -> bytes:
        try:
            return answer.read1(_BLOCK)
        except TimeoutError:
            raise _Broken(f"silent for {self.how.timeout:g} s") from None
        except (OSError, HTTPException) as error:
            raise _Broken(f"breaks off ({first_line(error)})") from None

    def _write(self, file: IO[bytes], block: bytes, flush: bool = False) -> None:
        try:
            file.write(block)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: OSError) -> FetchError:
        if error.errno in _FULL:
            return no_room(self.part.parent, error, f"what came is kept in {self.part}")
        return FetchError(f"{self.part}: cannot be written ({first_line(error)})")

    def _compared(self, start: int) -> Found:
        found = digest(self.part)
        if self.sha256 is not None and found.sha256 != self.sha256:
            self.part.unlink()
            self.note.unlink(missing_ok=True)
            if start and not self.anew:  # the piece that was there may have been the wrong one
                raise _Again
            raise FetchError(
                f"{self.url}: has wrong bytes: SHA-256 {found.sha256}, not {self.sha256} as "
                "recorded: it was changed, or tampered with; nothing of it was kept"
            )
        os.replace(self.part, self.path)
        self.note.unlink(missing_ok=True)
        return found

    def _lies(self, problem: str) -> FetchError:
        return FetchError(f"{self.url}: the server {problem}; nothing of it was kept")


def part_of(path: Path) -> Path:
    """Where a file is while it comes."""
    return path.with_name(f"{path.name}.part")


def _mark(headers: Message) -> str:
    """What a server calls this state of a file: a strong ETag, else when it was changed."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def no_room(folder: Path, error: OSError, kept: str) -> FetchError:
    """Returns what is said of a disk that is full."""
    return FetchError(
        f"{folder}: no room left ({first_line(error)}); {kept}; make room and run the same command "
        "again, it goes on from there"
    )


def digest(path: Path) -> Found:
    """Returns the size and SHA-256 of a file."""
    value, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value.update(block)
            size += len(block)
    return Found(size, value.hexdigest())
