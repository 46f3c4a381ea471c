"""From the intensity of every atom to its type."""

from .species import classify_atoms

__all__ = ["classify_atoms"]
