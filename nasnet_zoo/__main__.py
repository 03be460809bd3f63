"""`python -m nasnet_zoo`: the command line."""

from .cli import main

main()
