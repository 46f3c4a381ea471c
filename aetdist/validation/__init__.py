"""How accurate is it: the model simulated and taken through the same stages; and an experiment planned."""

from .cases import design_experiment
from .driver import Validation, validate_model, validate_stage
from .experiment import nested_path
from .planning import design
from .tables import table_of

__all__ = ["Validation", "design", "design_experiment", "nested_path", "table_of", "validate_model", "validate_stage"]
