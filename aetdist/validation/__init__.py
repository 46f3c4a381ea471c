"""How accurate is it: the model simulated and taken through the same stages; and an experiment planned."""

from .driver import Validation, validate_model, validate_stage
from .experiment import nested_path
from .tables import table_of

__all__ = ["Validation", "nested_path", "table_of", "validate_model", "validate_stage"]
