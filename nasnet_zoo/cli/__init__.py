"""The command line: `nasnet-zoo COMMAND --help` explains each command. Torch is imported only by those that need it."""

import io
import sys

from ..errors import ZooError
from .app import app

# Each registers its commands; help shows them in this order.
# isort: off
from . import zoo  # noqa: F401
from . import info  # noqa: F401
from . import predict  # noqa: F401
from . import train  # noqa: F401
from . import tune  # noqa: F401
from . import search  # noqa: F401
from . import export  # noqa: F401
# isort: on


def main() -> None:
    """Runs the command line; an error that the user can correct becomes one sentence and exit code 2."""
    _print_every_character()
    try:
        app()
    except ZooError as error:
        print(f"nasnet-zoo: {error}", file=sys.stderr)
        sys.exit(2)


def _print_every_character() -> None:
    """Escapes what the encoding of the output lacks: a name in Cyrillic on a Western Windows must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
