"""Errors that a person can act on: what failed, the value received, what is allowed, what to do next."""


class PanlinguaError(Exception):
    """Base of every error whose message is meant for the user."""


class EncoderError(PanlinguaError, ValueError):
    """An encoder cannot be found, read or used."""


class EncoderMismatchError(EncoderError):
    """The index was built with another encoder than the one asked for."""


class RerankerError(PanlinguaError, RuntimeError):
    """A reranker cannot be loaded or used; a search goes on without it and says so."""


class StoreError(PanlinguaError, RuntimeError):
    """The vector store refuses an operation or cannot be reached."""


class IndexNotFoundError(PanlinguaError, FileNotFoundError):
    """There is no index where one was expected."""


class IndexBusyError(PanlinguaError, BlockingIOError):
    """Another process is writing to the index."""


class IndexFormatError(PanlinguaError, ValueError):
    """An index or one of its files is damaged or of an unknown format."""


class QueryError(PanlinguaError, ValueError):
    """A query, filter or option of a search is not valid."""


class SourceError(PanlinguaError, ValueError):
    """A corpus, folder, file or record cannot be read."""


class TransientSourceError(SourceError):
    """A file that could not be read this time: the parser crashed, took too long, or the file system failed."""


class SettingsError(PanlinguaError, ValueError):
    """A setting has a value that is not allowed."""


class EvaluationError(PanlinguaError, ValueError):
    """An evaluation set, an option of an evaluation or an optional package is not fit for use."""


class TrainingDataError(PanlinguaError, ValueError):
    """A row, file or dataset of training or evaluation data cannot be used."""


class RecipeError(PanlinguaError, ValueError):
    """A training recipe is not valid."""


class TrainingError(PanlinguaError, RuntimeError):
    """A training run had to stop; its checkpoints are kept."""
