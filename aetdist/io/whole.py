"""Files and folders that appear once they are complete."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what is to become `path`: it takes its place when the block ends, and goes if that fails.

    What is there is replaced, a folder by a folder too.
    """
    partial = path.with_name(path.name + ".partial")
    _remove(partial)  # left by a killed run
    try:
        yield partial
        if not path.is_dir():
            partial.replace(path)
        else:
            replaced = path.with_name(path.name + ".replaced")
            _remove(replaced)
            path.rename(replaced)
            partial.rename(path)
            _remove(replaced)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
