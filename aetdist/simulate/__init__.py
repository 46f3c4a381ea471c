"""Made-up samples with a known truth, and the tilt series they would give."""

from .acquisition import simulate_acquisition
from .multislice import Multislice, forecast_multislice
from .phantoms import FilmShape, amorphous_film, film_shape, nanoparticle
from .tilt_series import simulate_tilt_series

__all__ = [
    "FilmShape",
    "Multislice",
    "amorphous_film",
    "film_shape",
    "forecast_multislice",
    "nanoparticle",
    "simulate_acquisition",
    "simulate_tilt_series",
]
