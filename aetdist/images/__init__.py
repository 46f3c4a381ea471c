"""What every step needs of single images: resampled once by cubic splines, registered to parts of a pixel."""

from .register import Registration, register
from .resample import resample

__all__ = ["Registration", "register", "resample"]
