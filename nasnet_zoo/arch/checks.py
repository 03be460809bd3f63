"""Checked values: from JSON files to dataclasses, with every type and choice checked."""

import dataclasses
import json
import re
import stat
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import ConfigError, ZooError
from ..util.arguments import as_python, check_type
from ..util.tables import nearest

MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 100  # what the project writes has ten levels
MAX_CHANNELS = 1 << 16
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)  # brackets in a string do not count


def read_json(path: str | Path, what: str, error: type[ZooError] = ConfigError) -> Any:
    """The value in a JSON file; raises `error` if it cannot be read, is no JSON, or is too large to be `what`."""
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # it may have no end
            raise error(f"cannot read the {what} {path}: it is no ordinary file")
        if status.st_size > MAX_JSON_BYTES:
            raise error(f"{path} is larger than {MAX_JSON_BYTES} bytes, which no {what} is")
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise error(f"cannot read the {what} {path}: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise error(f"{path} is not valid JSON: {problem}") from problem


def parse_json(text: Any) -> Any:
    """The value of a JSON text that came from a file; raises ValueError if it is none, or nested too deeply.

    The json module alone would raise RecursionError, or let through what everything that walks the value fails at:
    its limit depends on Python's version and on the caller's own depth.
    """
    if not isinstance(text, str):
        raise ValueError(f"it is {type(text).__name__}, not text")
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH:  # else it cannot be too deep
        depth = 0
        for token in _STRING_OR_BRACKET.finditer(text):
            depth += (token[0] in "[{") - (token[0] in "]}")
            if depth > MAX_JSON_DEPTH:
                raise ValueError(f"it is nested more than {MAX_JSON_DEPTH} levels deep")
    return json.loads(text)


def json_or_text(text: str) -> Any:
    """The value of a setting's text: parsed as JSON, or else the text itself."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def check_fields(value: Any, where: str) -> None:
    """Raises ConfigError if a field of a dataclass is of another type than is stated, or a Literal's is none of its
    choices. numpy's numbers in it become Python's, and whole numbers floats where those are stated."""
    for name, hint in get_type_hints(type(value)).items():
        found = getattr(value, name)
        if get_origin(hint) is Literal and found not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{where}: unknown {name} {found!r}; choose one of {choices}")
        check_type(found, hint, f"{where}: {name}")
        object.__setattr__(value, name, float(found) if hint is float else as_python(found))


def parse_dataclass(cls: type, value: Any, where: str) -> Any:
    """A frozen dataclass from a decoded JSON value, every type checked; raises ConfigError naming the field."""
    import pydantic  # imported here: at the top it would take most of `import nasnet_zoo`'s time

    hints = get_type_hints(cls)
    required = dataclasses.MISSING
    fields: dict[str, Any] = {
        f.name: (hints[f.name], ... if f.default is required else f.default) for f in dataclasses.fields(cls)
    }
    rules = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    model = pydantic.create_model(cls.__name__, __config__=rules, **fields)
    try:
        checked = model.model_validate_json(json.dumps(value))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "value"
        said = first["msg"]
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # the latter of dataclasses within
            said = f"there is no such field{nearest(str(first['loc'][-1]), _fields_at(cls, first['loc'][:-1]))}"
        raise ConfigError(f"{where}, {field}: {said}") from None
    return cls(**{name: getattr(checked, name) for name in fields})


def _fields_at(cls: Any, place: tuple[int | str, ...]) -> list[str]:
    """The fields of a dataclass, or of one that it has at a place; none if that place is of another type."""
    for part in place:
        cls = get_type_hints(cls).get(str(part)) if dataclasses.is_dataclass(cls) else None
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
