"""How the commands say what is wrong."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

PLOTS = (".png", ".svg", ".pdf")


def error_console() -> Console:
    return Console(stderr=True, soft_wrap=True)


def check_new(option: str, path: Path | None, suffixes: tuple[str, ...], overwrite: bool):
    """Says before the work what would only fail after it, and makes the folder the file will be in.

    Raises:
        ValueError: the name ends in none of `suffixes`.
        FileExistsError: the file is there already; only --overwrite replaces it.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} is {path}; give a name that ends in {' or '.join(suffixes)}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give another {option}, or --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)


def say(text: str):
    """A line on the terminal as it is: no markup, no colours, and not broken."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def warn(kind: str, text: str):
    """A line on the terminal that is no error: `kind: text`."""
    error_console().print(f"[yellow]{kind}:[/] {escape(text)}", highlight=False)


def sentence(error: Exception) -> str:
    """An error's text; the operating system's own say neither file nor kind in `args[0]`."""
    # TensorFlow's ResourceExhaustedError, JAX's XlaRuntimeError and Python's own.
    spent = "ResourceExhausted" in type(error).__name__ or "RESOURCE_EXHAUSTED" in str(error)
    if spent or isinstance(error, MemoryError):
        return "out of memory; give a smaller --batch-size or --image-size, where the command has them"
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.errno and error.filename:
        return f"{error.filename} is a file, and a folder is needed; give another name"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = error.args[-1] if isinstance(error, OSError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
