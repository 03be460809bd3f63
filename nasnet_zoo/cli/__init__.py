"""The command line: `nasnet-zoo COMMAND --help` explains each command. Torch is imported only by those that need it."""

import sys

from ..errors import ZooError
from . import export, search, train, zoo  # noqa: F401 - they register their commands
from .app import app


def main() -> None:
    """Runs the command line; an error that the user can correct becomes one sentence and exit code 2."""
    try:
        app()
    except ZooError as error:
        print(f"nasnet-zoo: {error}", file=sys.stderr)
        sys.exit(2)
