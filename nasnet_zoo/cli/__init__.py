"""The command line: `nasnet-zoo COMMAND --help` explains each command. Torch is imported only by those that need it."""

import sys

from ..errors import ZooError

# isort: off - they register their commands, which the help shows in this order
from . import export, search, train, zoo  # noqa: F401
from .app import app

# isort: on


def main() -> None:
    """Runs the command line; an error the user can mend becomes one sentence and exit code 2."""
    try:
        app()
    except ZooError as error:
        print(f"nasnet-zoo: {error}", file=sys.stderr)
        sys.exit(2)
