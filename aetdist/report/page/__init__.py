"""The report: one HTML file that needs nothing else, made of what a store holds."""

from .document import write_page
from .figures import write_pictures

__all__ = ["write_page", "write_pictures"]
