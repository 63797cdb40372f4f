"""How the commands say what is wrong."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape


def error_console() -> Console:
    return Console(stderr=True, soft_wrap=True)


def refuse_existing(option: str, path: Path | None, overwrite: bool):
    """Says before the work that a file is there already, which only --overwrite replaces."""
    if path is not None and path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give another {option}, or --overwrite")


def warn(kind: str, text: str):
    """A line on the terminal that is no error: `kind: text`."""
    error_console().print(f"[yellow]{kind}:[/] {escape(text)}", highlight=False)


def sentence(error: Exception) -> str:
    """An error's text; the operating system's own say neither file nor kind in `args[0]`."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = error.args[-1] if isinstance(error, OSError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
