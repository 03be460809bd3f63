"""`python -m nasnet_zoo.cli`."""

from . import main

main()
