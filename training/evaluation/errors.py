"""The error of this package."""

from search.errors import PanlinguaError


class EvaluationError(PanlinguaError, ValueError):
    """An evaluation set, an option of an evaluation or an optional package is not fit for use."""
