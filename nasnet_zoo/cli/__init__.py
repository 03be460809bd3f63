"""The command line: `nasnet-zoo COMMAND --help` explains each command. Torch is imported only by those that need it."""

import sys

from ..errors import ZooError
from .app import app

# Each registers its commands; help shows them in this order.
# isort: off
from . import zoo  # noqa: F401
from . import info  # noqa: F401
from . import train  # noqa: F401
from . import search  # noqa: F401
from . import export  # noqa: F401
# isort: on


def main() -> None:
    """Runs the command line; an error that the user can correct becomes one sentence and exit code 2."""
    try:
        app()
    except ZooError as error:
        print(f"nasnet-zoo: {error}", file=sys.stderr)
        sys.exit(2)
