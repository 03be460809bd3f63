"""The table of models: what a row says about a model, and how one is found by name."""

import difflib
import fnmatch
import json
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files

from .arch.config import NetworkConfig
from .arch.cost import Cost, network_cost
from .errors import ConfigError, UnknownModelError
from .util.arguments import check_type, checked


@dataclass(frozen=True)
class WeightSource:
    """Where public weights come from. `tag` is what follows the dot in `name.tag`.

    `form` is "package" (shipped with nasnet_zoo), "tf-slim" (a tar.gz at `address`), "keras" (an .h5 at `address`) or
    "timm" (the Hub repo `address` at `revision`). `accuracy` is (top-1, top-5) in percent as `accuracy_source` states
    it for these very weights.
    """

    tag: str
    form: str
    address: str
    revision: str | None = None
    md5: str | None = None
    accuracy: tuple[float, float] | None = None
    accuracy_source: str = ""


@dataclass(frozen=True)
class Published:
    """What the paper prints: parameters and multiply-adds (None where it does not), top-1 and top-5 in percent."""

    source: str
    parameters: float | None = None
    multiply_adds: float | None = None
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class ModelInfo:
    """One row of the table."""

    name: str
    config: NetworkConfig
    description: str
    paper: str
    published: Published
    weights: tuple[WeightSource, ...] = field(default=())
    license: str = "apache-2.0"

    def __repr__(self) -> str:
        weights = ", ".join(f"{self.name}.{source.tag}" for source in self.weights) or "none"
        return f"ModelInfo({self.name}: {self.description}; weights: {weights})"

    @property
    def pretrained(self) -> bool:
        return bool(self.weights)

    @cached_property
    def cost(self) -> Cost:
        """What it costs for one picture of the config's size: counted exactly, in closed form."""
        return network_cost(self.config)


MODELS: dict[str, ModelInfo] = {}

ZOO = "zoo"  # the tag of the weights in the zoo's own Hub repos, which every model may have

UNPUBLISHED = {"nasnet-b": "NASNet-B", "nasnet-c": "NASNet-C"}


def register(model: ModelInfo) -> None:
    """Adds a row to the table; raises ConfigError if the name is taken."""
    if model.name in MODELS:
        raise ConfigError(f"the model {model.name!r} is in the zoo already; choose another name")
    MODELS[model.name] = model


def get_model(name: str) -> ModelInfo:
    """Finds a model of the zoo; `nasnet_zoo.info` is this function.

    Args:
        name: a zoo name.

    Returns:
        The model's row of the table: config, published figures, weights and cost.

    Raises:
        UnknownModelError: if the zoo has no model of this name; the error gives the nearest names.
        ConfigError: for a name that is no text.
    """
    check_type(name, str, "info: name")
    if name in MODELS:
        return MODELS[name]
    for prefix, title in UNPUBLISHED.items():
        if name.lower() == prefix or name.lower().startswith(f"{prefix}-"):
            raise UnknownModelError(
                f"{title}'s cells are published only as figures of the NASNet paper (appendix B), so the zoo has none "
                f"under this name; a genotype you transcribe yourself builds with nasnet_zoo.create(config)"
            )
    near = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "`nasnet-zoo list` or nasnet_zoo.list_models() shows them"
    raise UnknownModelError(f"there is no model {name!r} in the zoo: {hint}")


def model_of(config: NetworkConfig) -> ModelInfo | None:
    """The model of the zoo whose network has this config."""
    return next((model for model in MODELS.values() if model.config == config), None)


@checked
def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Lists the models of the zoo.

    Args:
        pattern: a shell pattern that the names must match.
        pretrained: list only models that have weights.

    Returns:
        The names, sorted.
    """
    return sorted(
        name
        for name, model in MODELS.items()
        if fnmatch.fnmatchcase(name, pattern) and (model.pretrained or not pretrained)
    )


def accuracy(source: WeightSource) -> tuple[float, float] | None:
    """The top-1 and top-5 of weights in percent: as their publisher states them; of the shipped ones as measured."""
    if source.form != "package":
        return source.accuracy
    folder = files("nasnet_zoo") / "assets" / source.address
    measured = json.loads((folder / "config.json").read_text(encoding="utf-8"))["weights"]["accuracy"]
    return 100 * measured["cifar10_test_top1"], 100 * measured["cifar10_test_top5"]


def stated(source: WeightSource) -> tuple[str, str, str]:
    """Where weights come from, their top-1 / top-5 in percent, and who says so; "-" for what is not known."""
    both = accuracy(source)
    if source.form == "package" and both is not None:
        figures = f"{both[0]:.2f} / {both[1]:.2f}"
        return "in the package", figures, "measured here on all 10,000 CIFAR-10 test pictures"
    address = source.address + (f" @ {source.revision}" if source.revision else "")
    return (address, "-", "-") if both is None else (address, f"{both[0]} / {both[1]}", source.accuracy_source)
