"""What stages will take before anything of them runs: tasks, bytes, seconds."""

from .forecast import Forecast, Step
from .plan import plan, refuse_what_cannot_fit
from .stages import forecast_stages, require_fit
from .workers import Workers, workers_of

__all__ = [
    "Forecast",
    "Step",
    "Workers",
    "forecast_stages",
    "plan",
    "refuse_what_cannot_fit",
    "require_fit",
    "workers_of",
]
