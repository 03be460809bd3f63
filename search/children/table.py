"""The table of children: one row each."""

from ..config import SearchConfig
from ..spaces.base import Space
from .base import Child


def make_child(config: SearchConfig, space: Space) -> Child:
    """The child of a config's task."""
    if config.child.task == "nasbench201":
        from .nasbench import TableChild

        return TableChild(config.child)
    from .cifar import CifarChild

    return CifarChild(config.child, space.kind)
