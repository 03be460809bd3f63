"""What the events of a journal hold: checked when they are read, so that nothing after it meets a strange value.

Fields that are not listed are left alone. Imports no torch.
"""

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from .children.base import SUCCESSES
from .journal import Event
from .rewards import MAX_REWARD

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_COUNT = 2**31  # of children, attempts, ...: far more than any search has
MAX_SECONDS = 1e11  # since 1970: three thousand years
OF_A_CHILD = ("proposed", "started", "reported", "finished")


def check_event(event: Event) -> None:
    """Raises ValueError, naming the field, if an event from a journal is not what its kind should be."""
    from pydantic import ValidationError

    where = f"event {event.id}, {event.kind}"
    try:
        _shapes()["event"].model_validate(vars(event))
        _shapes()[event.kind].model_validate(event.body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}, {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if (event.child is not None) != (event.kind in OF_A_CHILD):
        raise ValueError(f"{where}: its child is {event.child}")
    if event.kind == "finished":
        status, reward, stopped = event.body["status"], event.body["reward"], event.body.get("stopped")
        if status in SUCCESSES and reward is None:
            raise ValueError(f"{where}: it is {status}, but has no reward")
        if (status == "stopped") != (stopped is not None):
            raise ValueError(f"{where}: it is {status}, and was stopped after {stopped} epochs")


@cache
def _shapes() -> dict[str, "type[BaseModel]"]:
    """A model for each kind of event, and one for what all have."""
    from pydantic import ConfigDict, Field, create_model

    count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
    seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
    reward = Annotated[float, Field(ge=-MAX_REWARD, le=MAX_REWARD)]
    fields: dict[str, dict[str, Any]] = {
        "event": {"time": (seconds, ...), "child": (count | None, ...), "body": (dict[str, Any], ...)},
        "session": {"context": (dict[str, str], {})},
        "proposed": {
            "tokens": (list[int], ...),
            "hash": (str, ...),
            "notes": (dict[str, Any], ...),
            "place": (count, 0),  # a replay alone needs these two
            "of": (count, 1),
        },
        "started": {"attempt": (count, ...)},
        "reported": {
            "epoch": (count, ...),
            "metrics": (dict[str, Any], ...),
            "reward": (reward, ...),
            "goes_on": (bool, ...),
        },
        "finished": {
            "status": (str, ...),  # "done", "stopped", or why there are no metrics
            "reward": (reward | None, ...),
            "metrics": (dict[str, Any], ...),
            "seconds": (seconds, ...),
            "message": (str, ""),
            "worker": (str, ""),
            "served": (count | None, None),
            "stopped": (count | None, None),  # the epochs after which it was
        },
        "updated": {"children": (list[count], ...), "statistics": (dict[str, float], ...)},
        "stopped": {},
        "excluded": {
            "place": (str, ...),
            "worker": (str, ""),
            "message": (str, ""),
            "returned": (list[count], ...),  # to be trained elsewhere
            "forgiven": (list[count], ...),  # an attempt of each does not count
        },
        "included": {"place": (str, ...)},
    }
    return {kind: create_model(kind, __config__=ConfigDict(strict=True), **shape) for kind, shape in fields.items()}
