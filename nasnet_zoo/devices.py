"""Whether a device that a user names is there."""

from .errors import ZooError


def check_device(device: str) -> None:
    """Raises ZooError unless torch can compute on it. A GPU is not woken for that."""
    if device == "cpu":
        return
    import torch

    try:
        place = torch.device(device)
        if place.type == "cuda" and (place.index or 0) < torch.cuda.device_count():
            return
        torch.zeros(1, device=place).item()  # "meta" is there, but holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ZooError(
            f"the device {device!r} is not there ({str(error).splitlines()[0]}): try --device cpu"
        ) from error
