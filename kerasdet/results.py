"""ResultsFile: COCO results that grow on disk and survive a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there two runs into one file are not told
    fcntl = None


class ResultsFile:
    """A COCO results file that is written batch by batch, as a context manager.

    After every `add` it is whole COCO json, a row a line. Beside it lies `<name>.progress`, which says how
    far it goes and what it was made with: from there a run that was killed goes on, and does at most the
    batch again that it was killed in. Neither grows in memory.

    Args:
        path: of the file, ending in .json. Its folder is made where there is none.
        settings: of values that json can hold, what the rows hang on.
        resume: go on with the file, if there is one.
        overwrite: begin anew, if there is one.

    Attributes:
        done: photos that have been dealt with.
        unreadable: how many of them could not be read.
        objects: rows of the file.

    Raises:
        FileExistsError: there is a file, and neither resume nor overwrite; or none to go on from beside it.
        ValueError: the file to go on with was made with other settings, or is shorter than it was; on
            entering it: another process is writing it (not told on Windows).
    """

    def __init__(self, path: str | os.PathLike, settings: dict, resume=False, overwrite=False):
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.done = self.unreadable = self.objects = 0
        self._progress, self._file = self.path.with_suffix(".progress"), None
        # Where the next row goes: over the closing bracket.
        self._end = 0
        if resume and self._progress.exists():
            self._take_up()
        elif resume and self.path.exists():
            raise FileExistsError(
                f"{self.path} has no {self._progress.name} beside it to go on from; give another --out, or "
                "--overwrite it"
            )
        elif self.path.exists() and not overwrite:
            raise FileExistsError(
                f"{self.path} exists; --resume goes on with it, --overwrite begins anew, another --out "
                "leaves it as it is"
            )

    def _take_up(self):
        try:
            saved = json.loads(self._progress.read_text(encoding="utf-8"))
            dict(saved["settings"]), [int(saved[key]) for key in ("bytes", "done", "unreadable", "objects")]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._progress}: damaged ({type(error).__name__}: {error}); begin anew with --overwrite"
            ) from error
        for key, value in self.settings.items():
            if saved["settings"].get(key) != value:
                raise ValueError(
                    f"{self.path} was begun with {key} {saved['settings'].get(key)!r}, now it is {value!r}; "
                    "give the same again, or another --out"
                )
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < saved["bytes"]:
            raise ValueError(
                f"{self.path} has {size} bytes, and {self._progress.name} knows of {saved['bytes']}: it was "
                "changed; begin anew with --overwrite"
            )
        self.done, self.unreadable = saved["done"], saved["unreadable"]
        self.objects, self._end = saved["objects"], saved["bytes"]

    def __enter__(self) -> ResultsFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()  # not "wb": what another run has there stays until the lock is ours
        self._file = self.path.open("r+b")
        try:
            self._lock()
            if not self._end:
                # What is killed right now must not go on from another run's end.
                self._progress.unlink(missing_ok=True)
                self._end = self._file.write(b"[")
            self.add([], 0)
        except BaseException:
            self._file.close()
            raise
        return self

    def _lock(self):
        """Keeps other processes out until the file is closed, however that comes."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{self.path}: another run is writing it; wait for it or stop it, or give another --out"
            ) from None
        except OSError:
            pass  # a file system without locks

    def __exit__(self, *error):
        self._file.close()

    def add(self, rows: list[dict], photos: int, unreadable: int = 0):
        """Writes the rows of so many photos more, and how many of them could not be read."""
        self._file.seek(self._end)
        for row in rows:
            self._file.write((b",\n" if self.objects else b"\n") + json.dumps(row).encode())
            self.objects += 1
        self._end = self._file.tell()
        self._file.write(b"\n]\n")
        # Rows of the batch that a run was killed in may lie behind.
        self._file.truncate()
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done, self.unreadable = self.done + photos, self.unreadable + unreadable
        self._note()

    def _note(self):
        saved = {
            "done": self.done, "unreadable": self.unreadable, "objects": self.objects, "bytes": self._end,
            "settings": self.settings,
        }
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._progress)
