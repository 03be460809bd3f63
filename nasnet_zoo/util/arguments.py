"""Values that a user gives, checked against the types that a function or a dataclass states for them."""

import functools
import inspect
import os
import types
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    types.NoneType: "None",
    tuple: "a tuple",
    list: "a list",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises ConfigError, naming the parameter, for an argument of another type than it states."""
    signature = inspect.signature(function)
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    types_of = functools.cache(lambda: get_type_hints(function))  # not before the first call: some may be expensive

    @functools.wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # the call below fails too, and Python's own error names the function
            given = {}
        for name, value in given.items():
            check_type(value, types_of().get(name, Any), f"{called}: {name}")
        return function(*args, **kwargs)

    return checking


def check_type(value: Any, stated: Any, where: str) -> None:
    """Raises ConfigError unless the value is of the stated type."""
    if not fits(value, stated) or get_origin(stated) is Literal and value not in get_args(stated):
        shown = repr(value)
        shown = shown if len(shown) <= 60 and "\n" not in shown else f"a {type(value).__name__}"
        raise ConfigError(f"{where} is {shown}, and has to be {described(stated)}")


def fits(value: Any, stated: Any) -> bool:
    """Whether a value is of a stated type. numpy's numbers are numbers, a list may stand for a tuple, and a Literal's
    values are of its type. A type that this function does not know takes everything."""
    origin, inside = get_origin(stated), get_args(stated)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inside)
    if origin is Literal:
        return any(isinstance(value, type(each)) for each in inside)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        each = inside[:1] * len(value) if inside[1:] == (...,) else inside
        return len(each) == len(value) and all(map(fits, value, each))
    if origin in (list, Sequence):
        kinds = list if origin is list else Sequence
        return isinstance(value, kinds) and all(fits(each, inside[0]) for each in value)
    if origin is not None:
        return callable(value) if origin is Callable else isinstance(value, origin)
    if stated is bool:
        return type(value).__name__ in ("bool", "bool_")
    if stated in (int, float):
        return isinstance(value, Integral if stated is int else Real) and not isinstance(value, bool)
    if stated is Path:
        return isinstance(value, os.PathLike)
    known = isinstance(stated, type) and stated.__module__ != "typing"
    known = known and getattr(stated, "_is_runtime_protocol", not getattr(stated, "_is_protocol", False))
    return isinstance(value, stated) if known else True


def as_python(value: Any) -> Any:
    """The value with Python's own numbers in place of numpy's, which do not fit into JSON."""
    if type(value) in (tuple, list):
        return type(value)(map(as_python, value))
    if isinstance(value, Real) and not isinstance(value, (bool, int, float)):
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def described(stated: Any) -> str:
    """A stated type in words."""
    origin, inside = get_origin(stated), get_args(stated)
    if origin in (Union, types.UnionType):
        inside = sorted(inside, key=lambda each: each is not types.NoneType)  # "None or several, each a text"
        return " or ".join(dict.fromkeys(described(each) for each in inside))
    if origin is Literal:
        return " or ".join(map(repr, inside))
    if origin in (tuple, list, Sequence):
        several = [each for each in inside if each is not ...]
        if len(set(several)) != 1:
            return NAMES[tuple]
        count = f"{len(inside)} values" if origin is tuple and ... not in inside else "several"
        return f"{count}, each {described(several[0])}"
    if origin is Callable:
        return "a function"
    name = getattr(stated, "__name__", str(stated))
    return NAMES.get(stated, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")
