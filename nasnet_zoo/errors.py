"""Every error a user can cause: one sentence that says what is wrong, where, and what to do."""


class ZooError(Exception):
    """Base of all errors a user can cause; the CLI prints its sentence and exits with 2."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, or the error's name: short enough for a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class GenotypeError(ZooError):
    """A genotype that is malformed or refers to something that does not exist; names the cell and block."""


class ConfigError(ZooError):
    """A network config (or its JSON) that is malformed, of another version, or impossible to build."""


class UnknownModelError(ZooError):
    """A model name that the zoo does not have; names the nearest ones."""


class CheckpointError(ZooError):
    """A weight file or checkpoint folder that is missing, damaged, or does not fit its config."""


class ConversionError(ZooError):
    """Foreign weights whose names or shapes do not fit the config; lists what is missing and what is left over."""


class DownloadError(ZooError):
    """Weights that could not be fetched: no network, a lost connection, a hash that does not match."""


class ImageError(ZooError):
    """A picture that cannot be decoded or used."""


class TrainingError(ZooError):
    """A training that cannot continue: its loss or weights are no longer finite numbers."""


class DataError(ZooError):
    """A data folder that is missing or not what it should be."""


class BusyError(ZooError):
    """Something that another process is working on."""


class JournalError(ZooError):
    """A search's run folder or journal that is damaged, of another version, or belongs to another search."""


class SearchError(ZooError):
    """A search that cannot start or continue: no workers, children that all fail, a setting that does not fit."""


class ExportError(ZooError):
    """A graph that cannot be made, fails its verification, is damaged, or is not one of ours."""


class SessionError(ZooError):
    """A graph (or network) that cannot be run as asked: wrong shape or type, an absent provider, too little memory."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, onnxruntime or numpy, or its cause, says that there is not enough memory."""
    signs = (
        *("failed to allocate", "bad_alloc", "bad allocation", "out of memory", "alloc_failed"),
        *("allocate memory", "not enough memory"),
    )
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in signs):
        return True
    return isinstance(error, SessionError) and error.__cause__ is not None and out_of_memory(error.__cause__)
