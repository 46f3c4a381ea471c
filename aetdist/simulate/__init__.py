"""Made-up samples with a known truth, and the tilt series they would give."""

from .acquisition import simulate_acquisition
from .phantoms import FilmShape, amorphous_film, film_shape, nanoparticle
from .tilt_series import simulate_tilt_series

__all__ = ["FilmShape", "amorphous_film", "film_shape", "nanoparticle", "simulate_acquisition", "simulate_tilt_series"]
