"""The registry of network kinds: the one place that knows which kinds there are. Imports no torch.

A kind says how its architecture is read and written, what its scale is made of, and how a network of it is built,
drawn, counted and hashed. Configs, checkpoints, reports and the CLI dispatch on `config.kind` and know nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .cells import CellScale
from .config import NetworkConfig
from .cost import Cost, cell_cost
from .genotype import Genotype

if TYPE_CHECKING:
    from ..networks.network import Network


@dataclass(frozen=True)
class Kind:
    """How one kind of network is handled; see the module's docstring."""

    scale: type
    architecture_from_json: Callable[[Any], Any]
    architecture_to_json: Callable[[Any], Any]
    hash: Callable[[Any], str]
    build: "Callable[[NetworkConfig], Network]"
    cost: Callable[[NetworkConfig, tuple[int, int]], Cost]
    draw: Callable[..., None]


KINDS: dict[str, Kind] = {}


def register_kind(name: str, kind: Kind) -> None:
    """Adds a kind; the name is what configs say in `kind`."""
    if name in KINDS:
        raise ConfigError(f"the kind {name!r} is registered already; choose another name")
    KINDS[name] = kind


def get_kind(name: str) -> Kind:
    """The kind of that name, or ConfigError."""
    if name not in KINDS:
        raise ConfigError(f"unknown kind {name!r}; this nasnet_zoo has {', '.join(sorted(KINDS))}")
    return KINDS[name]


def _build(config: NetworkConfig) -> "Network":
    from ..networks.cells import CellNetwork

    return CellNetwork(config)


def _draw(genotype: Genotype, path: Any, **options: Any) -> None:
    from .draw.cells import draw_genotype

    draw_genotype(genotype, path, **options)


register_kind(
    "cell",
    Kind(
        scale=CellScale,
        architecture_from_json=Genotype.from_json,
        architecture_to_json=Genotype.to_json,
        hash=lambda genotype: genotype.canonical_hash,
        build=_build,
        cost=cell_cost,
        draw=_draw,
    ),
)
