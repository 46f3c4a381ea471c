"""From traced atoms and the tilt series to the atoms that explain it best, and how sure each of them is."""

from .atoms import refine_atoms

__all__ = ["refine_atoms"]
