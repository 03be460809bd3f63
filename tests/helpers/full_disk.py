"""A disk that is full, as far as a test's own process can tell."""

from contextlib import contextmanager

try:
    import resource
except ImportError:  # on Windows, where the tests that need it are skipped
    resource = None


@contextmanager
def no_file_above(size: int):
    """The kernel refuses to let files grow beyond that, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
