"""What a search is, as data. Imports no torch.

A run folder's `config.json` is a SearchConfig. What does not change the search itself, where it runs and how long,
may differ when it is resumed.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nasnet_zoo.arch.checks import check_choices, parse_dataclass
from nasnet_zoo.arch.config import MAX_CHANNELS
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.training.recipe import Recipe

from .spaces.base import Space
from .spaces.table import get_space

FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
MAX_HIDDEN = 10_000
Action = Literal["floor", "retry", "skip"]


@dataclass(frozen=True)
class SpaceSettings:
    """A row of spaces.py, with its number of blocks, ops or combinations changed where they are given."""

    name: str = "nasnet"
    blocks: int | None = None
    ops: tuple[str, ...] | None = None
    combines: tuple[str, ...] | None = None

    def space(self) -> Space:
        return get_space(self.name, blocks=self.blocks, ops=self.ops, combines=self.combines)


@dataclass(frozen=True)
class ControllerSettings:
    """The controller's and its training's. The defaults are the paper's; it does not give PPO's clip and epochs.

    `baseline_decay` is the weight of the old value in the moving average of rewards that is subtracted as baseline.
    `normalise` divides advantages by their deviation within the batch.
    """

    hidden: int = 100
    learning_rate: float = 3.5e-4
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95
    batch: int = 20
    clip: float = 0.2
    epochs: int = 5
    initial: float = 0.1
    normalise: bool = False

    def __post_init__(self) -> None:
        if min(self.hidden, self.batch, self.epochs) < 1 or self.learning_rate <= 0 or not 0 < self.clip < 1:
            raise ConfigError(
                "controller: hidden, batch and epochs must be at least 1, learning_rate above 0 and clip in (0, 1)"
            )
        if self.hidden > MAX_HIDDEN:
            raise ConfigError(f"controller: hidden {self.hidden} is more than the {MAX_HIDDEN} units that make sense")
        if not 0 <= self.baseline_decay < 1 or min(self.entropy_weight, self.initial) < 0:
            raise ConfigError(
                "controller: baseline_decay must lie in [0, 1) and entropy_weight and initial must not be negative"
            )


@dataclass(frozen=True)
class EvolutionSettings:
    """Regularized (ageing) evolution's (Real et al. 2018, section 3): P and S."""

    population: int = 100
    sample: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.sample <= self.population:
            raise ConfigError(f"evolution: sample {self.sample} must lie between 1 and population {self.population}")


@dataclass(frozen=True)
class ChildSettings:
    """What a child is and how it is trained (NASNet paper, appendix A.2: N = 2, 20 epochs on 45,000 pictures).

    `task` "cifar10" trains it; "nasbench201" looks it up in the table at `data`, columns `table`-val and -test.
    `filters` and `cells` are F and N, `stem` times F the stem's width, `side` the pictures' in pixels. Of CIFAR-10's
    training pictures, in an order drawn with `split_seed`, the last `validation` are for the reward and the first
    `pictures` for training. `calibration` pictures renew batch norm's statistics before the evaluation (precise batch
    norm); 0 for none. `whiten` normalises each picture by its own mean and deviation instead of the data's. A child
    that takes longer than `seconds` has timed out.
    """

    task: Literal["cifar10", "nasbench201"] = "cifar10"
    data: str | None = None
    table: str = "cifar10"
    filters: int = 32
    cells: int = 2
    stem: float = 3.0
    side: int = 32
    pictures: int = 45_000
    validation: int = 5_000
    split_seed: int = 0
    calibration: int = 1024
    whiten: bool = False
    seconds: float | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe(20))

    def __post_init__(self) -> None:
        check_choices(self, "child")
        if not 1 <= self.filters <= MAX_CHANNELS or self.cells < 1 or self.stem <= 0:
            raise ConfigError("child: filters and cells must be at least 1 and stem above 0")
        if not 8 <= self.side <= 256:
            raise ConfigError(f"child: side {self.side} is not between 8 and 256 pixels")
        if self.pictures < 2 or self.validation < 1 or self.pictures + self.validation > 50_000:
            raise ConfigError(
                f"child: pictures {self.pictures} and validation {self.validation} must fit into CIFAR-10's 50,000"
            )
        if (self.seconds is not None and self.seconds <= 0) or self.calibration < 0:
            raise ConfigError("child: seconds must be above 0 and calibration must not be negative")


@dataclass(frozen=True)
class FailureSettings:
    """What a child that fails is worth, by what it died of: "floor" gives it the `floor` reward, "retry" trains it
    again, up to `attempts` times in all, then floors it, and "skip" hides it from the searcher. It counts as an
    evaluation in any case. After `stop` failures in a row the search stops, for then it is not the child's fault."""

    nan: Action = "floor"
    oom: Action = "floor"
    timeout: Action = "floor"
    error: Action = "floor"
    lost: Action = "retry"
    floor: float = 0.0
    attempts: int = 3
    stop: int = 20

    def __post_init__(self) -> None:
        check_choices(self, "failures")
        if self.attempts < 1 or self.stop < 1:
            raise ConfigError("failures: attempts and stop must be at least 1")


@dataclass(frozen=True)
class FleetSettings:
    """Where children are trained. `devices` are torch's names; empty for every GPU, or the CPU where there is none.
    Each has `per_device` workers; `threads` is how many cores a worker takes on a CPU (0: an equal share)."""

    kind: Literal["inline", "processes", "ray"] = "inline"
    devices: tuple[str, ...] = ()
    per_device: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        check_choices(self, "fleet")
        if self.per_device < 1 or self.threads < 0:
            raise ConfigError(f"fleet: {self.per_device} workers per device; a search needs at least one")


@dataclass(frozen=True)
class SearchConfig:
    """A whole search. `children` is how many evaluations it has, repeats and failures included.

    `reward` is a function of rewards.py on the child's metrics. An architecture that comes again is answered from the
    journal ("serve") or trained again with another seed ("train"). Child i's seed depends on `seed` and i alone.
    """

    folder: str
    space: SpaceSettings = SpaceSettings()
    searcher: Literal["ppo", "reinforce", "evolution", "random"] = "ppo"
    controller: ControllerSettings = ControllerSettings()
    evolution: EvolutionSettings = EvolutionSettings()
    child: ChildSettings = ChildSettings()
    children: int = 20_000
    reward: str = "accuracy"
    repeats: Literal["serve", "train"] = "train"
    failures: FailureSettings = FailureSettings()
    fleet: FleetSettings = FleetSettings()
    seed: int = 0
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        from .rewards import REWARDS

        check_choices(self, "search")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"search: seed {self.seed} does not lie between 0 and 2**63 - 1")
        if self.children < 1:
            raise ConfigError(f"search: {self.children} children; a search needs at least one")
        if self.reward not in REWARDS:
            raise ConfigError(f"search: there is no reward {self.reward!r}; there are {', '.join(REWARDS)}")
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"this search config has format_version {self.format_version}, this nasnet_zoo reads {FORMAT_VERSION}"
            )
        if (self.space.name == "nasbench201") != (self.child.task == "nasbench201"):
            raise ConfigError(
                f"search: children of the task {self.child.task} cannot be cells of the space {self.space.name}: "
                f"nasbench201 goes with nasbench201, every other space with cifar10"
            )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "SearchConfig":
        """The config in a decoded JSON value; raises ConfigError naming the field."""
        if not isinstance(value, dict):
            raise ConfigError("a search config is a JSON object; this is not one")
        return parse_dataclass(cls, value, "search config")

    def identity(self) -> dict[str, Any]:
        """What decides the outcome, flat: {"controller.batch": 20, ...}. A resumed search must agree in all of it."""
        value = json.loads(json.dumps(self.to_json()))
        for free in ("folder", "fleet", "children"):
            del value[free]
        del value["child"]["data"]  # where the data lies; what they are is checked when they are read
        return dict(_flat("", value))


def read_search_config(path: str | Path) -> SearchConfig:
    """The search config in a JSON file; raises ConfigError naming the file."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes, which no search config is")
        return SearchConfig.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _flat(prefix: str, value: Any):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, entry)
    else:
        yield prefix, value
