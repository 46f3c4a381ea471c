"""From traced atoms and the tilt series to the atoms that explain it best, and how sure each of them is."""

from .atoms import refine_atoms
from .edits import Edit, apply_edits, read_edits

__all__ = ["Edit", "apply_edits", "read_edits", "refine_atoms"]
