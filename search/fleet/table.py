"""The table of fleets."""

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.util.environment import check_device

from ..children.base import Child
from ..config import FleetSettings
from .base import Fleet, devices_of, threads_of


def make_fleet(settings: FleetSettings, child: Child) -> Fleet:
    """The fleet of the settings, not yet started; raises SearchError if what it needs is not installed or not there,
    and ConfigError for settings that it would not heed."""
    if settings.kind == "ray":
        from .rays import RayFleet

        return RayFleet(child, settings)
    devices = devices_of(settings)
    for device in devices:
        check_device(device)
    if settings.kind == "inline":
        if settings.per_device > 1 or len(settings.devices) > 1:
            raise ConfigError("the fleet inline runs one child at a time on one device: choose --fleet processes")
        from .inline import InlineFleet

        return InlineFleet(child, devices[0], settings.threads)
    from .processes import ProcessFleet

    places = [device for device in devices for _ in range(settings.per_device)]
    return ProcessFleet(child, places, threads_of(settings, devices))
