"""Fleets: where children run. The driver does not know which one it has."""

from ..child import Child
from ..config import FleetSettings
from .base import Fleet, devices_of, threads_of


def make_fleet(settings: FleetSettings, child: Child) -> Fleet:
    """The fleet of the settings, not yet started; raises SearchError if what it needs is not installed."""
    if settings.kind == "ray":
        from .rays import RayFleet

        return RayFleet(child, settings)
    devices = devices_of(settings)
    if settings.kind == "inline":
        from .inline import InlineFleet

        return InlineFleet(child, devices[0], settings.threads)
    from .processes import ProcessFleet

    places = [device for device in devices for _ in range(settings.per_device)]
    return ProcessFleet(child, places, threads_of(settings, devices))


__all__ = ["Fleet", "make_fleet"]
