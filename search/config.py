"""The config of a search, as data. Imports no torch.

A run folder's `config.json` is a SearchConfig. When a search is resumed, some settings may change: where it runs and
how long, and how children that fail or repeat are treated.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nasnet_zoo.arch.checks import check_fields, parse_dataclass, read_json
from nasnet_zoo.errors import ConfigError

from .children.base import BaseChildSettings
from .children.settings import CifarChildSettings
from .children.table import CHILDREN, own_settings
from .costs import CostSettings
from .fleet.base import FleetSettings
from .fleet.table import FLEETS
from .rewards import REWARDS
from .rungs import RungSettings
from .searchers.table import SEARCHERS, searcher_sections
from .spaces.table import SPACES, SpaceSettings
from .versions import FORMAT_VERSION, upgraded

MAY_CHANGE = ("failures.", "repeats", "child.seconds")  # of the identity, when a search is resumed
ROWS = {"space": ("name", SPACES), "child": ("task", CHILDREN), "fleet": ("kind", FLEETS)}  # which field names the row
Action = Literal["floor", "retry", "skip"]
Repeats = Literal["serve", "train"]


@dataclass(frozen=True)
class FailureSettings:
    """How a failed child is treated, by the kind of failure. "floor" gives it the `floor` reward; "retry" trains it
    again, up to `attempts` times in all, and then gives it that reward; "skip" hides it from the searcher. It counts as
    an evaluation in any case. A child is "lost" when its worker or the driver dies; it is "rejected", and is no
    evaluation, if it costs more than a limit. After `stop` failures in a row the search stops, because then the cause
    is not a single child; nor is it if `stop` workers fail.

    The `floor` is a reward, or "worst": the lowest of the last hundred. A reward far outside what children have would
    teach the searcher little else."""

    nan: Action = "floor"
    oom: Action = "floor"
    timeout: Action = "floor"
    error: Action = "floor"
    lost: Action = "retry"
    rejected: Literal["floor", "skip"] = "floor"
    floor: float | Literal["worst"] = "worst"
    attempts: int = 3
    stop: int = 20

    def __post_init__(self) -> None:
        check_fields(self, "failures")
        if self.attempts < 1 or self.stop < 1:
            raise ConfigError("failures: attempts and stop must be at least 1")


@dataclass(frozen=True, init=False)
class SearchConfig:
    """A whole search. `children` is how many evaluations it has, repeats and failures included; children that a limit
    of `cost` rejects are none. `enqueue` are the tokens of architectures that are tried first. Children that fall
    behind at one of the `rungs` are stopped there, and count.

    `space`, `searcher`, `child`, `fleet` and `reward` are rows of their tables. The settings of searchers are arguments
    and attributes with the names of their sections (`controller`, `evolution`); the settings of searchers that are not
    used have no effect. `repeats`: an architecture that is proposed again gets its result from the journal ("serve") or
    is trained again with another seed ("train"). Child i's seed depends only on `seed` and i.
    """

    folder: str
    space: SpaceSettings
    searcher: str
    child: BaseChildSettings
    children: int
    reward: str
    cost: CostSettings
    rungs: RungSettings
    repeats: Repeats
    failures: FailureSettings
    fleet: FleetSettings
    enqueue: tuple[tuple[int, ...], ...]
    seed: int
    format_version: int
    sections: Mapping[str, Any] = field(hash=False)  # of searchers, unless they are the defaults

    def __init__(
        self,
        folder: str,
        space: SpaceSettings = SpaceSettings(),  # noqa: B008 - frozen, as are those below
        searcher: str = "ppo",
        *,
        child: BaseChildSettings = CifarChildSettings(),  # noqa: B008
        children: int = 20_000,
        reward: str = "accuracy",
        cost: CostSettings = CostSettings(),  # noqa: B008
        rungs: RungSettings = RungSettings(),  # noqa: B008
        repeats: Repeats = "train",
        failures: FailureSettings = FailureSettings(),
        fleet: FleetSettings = FleetSettings(),  # noqa: B008
        enqueue: tuple[tuple[int, ...], ...] = (),
        seed: int = 0,
        format_version: int = FORMAT_VERSION,
        sections: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        values = locals()
        values["sections"] = _of_searchers({**(sections or {}), **settings})
        if isinstance(fleet, FleetSettings) and fleet.threads and isinstance(child, BaseChildSettings):
            # The first version had them there. They decide a child's reward on a CPU, so they are the child's.
            values["child"], values["fleet"] = replace(child, threads=fleet.threads), replace(fleet, threads=0)
        for each in dataclasses.fields(self):
            object.__setattr__(self, each.name, values[each.name])
        self._check()

    def __repr__(self) -> str:
        what = f"space={self.space.name}, searcher={self.searcher}, child={self.child.task}"
        return f"SearchConfig({self.folder!r}, {what}, children={self.children}, seed={self.seed})"

    def _check(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(f"search: format_version {self.format_version}; leave it out, or say {FORMAT_VERSION}")
        check_fields(self, "search")
        SEARCHERS.row(self.searcher)
        REWARDS.row(self.reward)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"search: seed {self.seed} does not lie between 0 and 2**63 - 1")
        if self.children < 1:
            raise ConfigError(f"search: {self.children} children; a search needs at least one")
        for section, (tag, table) in ROWS.items():
            settings = getattr(self, section)
            _check_type(settings, table.row(getattr(settings, tag)).settings, section)
        epochs, last = self.child.training_epochs(), max(self.rungs.epochs, default=0)
        if epochs is not None and last >= epochs:
            raise ConfigError(
                f"search: a rung after {last} epochs, where children are trained for {epochs}: give epochs below that"
            )

    @property
    def settings(self) -> Any:
        """The searcher's own settings, None if it has none."""
        section = SEARCHERS.row(self.searcher).section
        return getattr(self, section) if section else None

    def __getattr__(self, name: str) -> Any:
        """The settings of a searcher, by the name of their section."""
        known = searcher_sections()
        if name not in known:
            raise AttributeError(f"a search has no {name!r}")
        return self.sections.get(name) or known[name]()

    def to_json(self) -> dict[str, Any]:
        value = dataclasses.asdict(self)
        sections = value.pop("sections")
        if self.settings is not None:
            sections[SEARCHERS.row(self.searcher).section] = dataclasses.asdict(self.settings)
        return value | sections

    @classmethod
    def from_json(cls, value: Any) -> "SearchConfig":
        """The config in a decoded JSON value; raises ConfigError naming the field."""
        if not isinstance(value, dict):
            raise ConfigError("a search config is a JSON object; this is not one")
        value = upgraded(value)
        types = section_types(value)
        plain = [each for each in dataclasses.fields(cls)[1:] if each.name not in ("sections", *types)]
        default = cls("")
        shape = dataclasses.make_dataclass(
            "SearchConfig",
            [
                ("folder", str),
                *((each.name, each.type, getattr(default, each.name)) for each in plain),
                *((section, settings, settings()) for section, settings in types.items()),
            ],
        )
        if "child" in value:
            value = value | {"child": own_settings(value["child"], types["child"])}
        return cls(**vars(parse_dataclass(shape, value, "search config")))

    def flat(self) -> dict[str, Any]:
        """All settings that have an effect in this search: {"controller.batch": 20, ...}."""
        value = json.loads(json.dumps(self.to_json()))
        for other in {"folder", "format_version", *searcher_sections()} - {SEARCHERS.row(self.searcher).section}:
            value.pop(other, None)
        return dict(_flat("", value))

    def identity(self) -> dict[str, Any]:
        """The settings that decide the outcome. The location of the data is not one: their content is checked when they
        are read."""
        free = ("fleet.", "children", "child.data")
        flat = {key: value for key, value in self.flat().items() if not key.startswith(free)}
        return flat | {"format_version": self.format_version}

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> "SearchConfig":
        """A config with that identity. Settings that an older version did not have are those that it worked by."""
        if not isinstance(identity, dict):
            raise ConfigError("a search's identity is a JSON object; this is not one")
        value: dict[str, Any] = {"folder": "", "format_version": 1}  # the first version's identities do not tell it
        for path, entry in identity.items():
            *above, last = path.split(".")
            place = value
            for part in above:
                place = place.setdefault(part, {})
                if not isinstance(place, dict):
                    raise ConfigError(f"search config: {path} is below a value")
            place[last] = entry
        return cls.from_json(value)


def section_types(value: Mapping[str, Any]) -> dict[str, type]:
    """The settings of every section of a config in JSON: of all searchers, and of the rows that it names."""
    types = searcher_sections()
    for section, (tag, table) in ROWS.items():
        settings = value.get(section)
        name = settings.get(tag) if isinstance(settings, dict) else None
        types[section] = table.row(name if isinstance(name, str) else next(iter(table))).settings
    return types


def read_search_config(path: str | Path) -> SearchConfig:
    """The search config in a JSON file; raises ConfigError naming the file."""
    value = read_json(path, "search config")
    try:
        return SearchConfig.from_json(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _of_searchers(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not the defaults; all must be of searchers."""
    known = searcher_sections()
    for section, value in settings.items():
        if section not in known:
            raise TypeError(f"a search has no setting {section!r}")
        _check_type(value, known[section], section)
    return {section: value for section, value in settings.items() if value != known[section]()}


def _check_type(value: Any, expected: type, section: str) -> None:
    if type(value) is not expected:
        raise ConfigError(f"search: {section} must be {expected.__name__}, not {type(value).__name__}")


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, entry)
    else:
        yield prefix, value
