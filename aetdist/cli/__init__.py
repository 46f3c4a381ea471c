"""The command line: text to pipeline calls, nothing else.

Defaults are not repeated here: an option that is not given is not passed on, so that the default in
the stage's own signature holds. Scientific modules are imported inside the commands.
"""

from __future__ import annotations

from . import atoms, experiments, results, series, volumes  # noqa: F401 - each adds its commands to the program
from .options import program

__all__ = ["main", "program"]


def main() -> None:
    """Run the command line of this process."""
    program()
