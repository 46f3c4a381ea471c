"""Figures in the size and the style of a journal, after those of Yang et al. 2021."""

from .catalogue import Material, PaperFigure
from .figures import FIGURES
from .movie import write_movies

__all__ = ["FIGURES", "Material", "PaperFigure", "write_movies"]
