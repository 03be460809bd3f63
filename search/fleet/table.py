"""The table of fleets: one row each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.environment import check_device
from nasnet_zoo.util.tables import Table

from ..children.base import Child
from .base import Fleet, FleetSettings, devices_of, threads_of, workers_on
from .inline import InlineFleet
from .processes import ProcessFleet


class FleetEntry(NamedTuple):
    """`make` raises SearchError if something that the fleet needs is missing or not installed, and ConfigError for
    settings that it does not support. `settings` is FleetSettings or a subclass with more fields."""

    title: str
    make: Callable[[Any, Child], Fleet]
    settings: type[FleetSettings] = FleetSettings


def make_fleet(settings: FleetSettings, child: Child) -> Fleet:
    """The fleet of the settings, not yet started; raises SearchError or ConfigError."""
    return FLEETS.row(settings.kind).make(settings, child)


def _inline(settings: FleetSettings, child: Child) -> Fleet:
    devices = _checked_devices(settings)
    if settings.per_device > 1 or len(settings.devices) > 1:
        raise ConfigError("the fleet inline runs one child at a time on one device: choose --fleet processes")
    return InlineFleet(child, devices[0], settings.threads)


def _processes(settings: FleetSettings, child: Child) -> Fleet:
    devices = _checked_devices(settings)
    places = [device for device in devices for _ in range(workers_on(device, settings))]
    return ProcessFleet(child, places, threads_of(settings, len(places)))


def _ray(settings: FleetSettings, child: Child) -> Fleet:
    from .rays import RayFleet  # Ray is an extra

    return RayFleet(child, settings)


def _checked_devices(settings: FleetSettings) -> tuple[str, ...]:
    devices = devices_of(settings)
    for device in devices:
        check_device(device)
    return devices


FLEETS = Table(
    "fleet",
    {
        "inline": FleetEntry("one child at a time, in the driver's own process", _inline),
        "processes": FleetEntry("worker processes on this machine, several per device if that pays", _processes),
        "ray": FleetEntry("workers on a Ray cluster whose nodes may come and go", _ray),
    },
)
