"""The child of a grid: one network, trained by a recipe that the space has chosen."""

from dataclasses import fields, replace
from typing import Any

import torch

from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.data.label_file import read_labels
from nasnet_zoo.data.labels import label_names
from nasnet_zoo.data.sets import DataSet, find_data, is_cifar10, with_held_out
from nasnet_zoo.errors import ConfigError, DataError, TrainingError
from nasnet_zoo.networks.build import build
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.recipes import find_recipe
from nasnet_zoo.training.run import classify

from .base import ChildFailure
from .own_pictures import context_of_pictures
from .settings import RecipeChildSettings


class RecipeChild:
    """Trains the settings' network with fresh weights and measures it on pictures held out from the training; its
    architecture is a dict of fields of the recipe or of the network's scale."""

    def __init__(self, settings: RecipeChildSettings) -> None:
        self.settings = settings
        self.data: DataSet | None = None

    def context(self) -> dict[str, str]:
        data = self.settings.data or "cifar10"
        return {} if is_cifar10(data) else context_of_pictures(data)

    def prepare(self, device: str) -> None:
        """Puts pictures that fit into memory on the device; raises DataError."""
        if self.data is not None:
            return
        settings, config = self.settings, NetworkConfig.from_json(self.settings.config)
        labels = label_names(config) if settings.labels is None else read_labels(settings.labels)
        found = with_held_out(find_data(settings.data or "cifar10", labels), settings.hold_out)
        train, val = (part.to(device) if isinstance(part, Pictures) else part for part in (found.train, found.val))
        self.data, self.device = replace(found, train=train, val=val, test=None), device

    def __call__(self, architecture: dict[str, Any], seed: int) -> dict[str, Any]:
        assert self.data is not None
        seed, losses = self.settings.seed, []
        try:
            config, recipe = changed(NetworkConfig.from_json(self.settings.config), self.settings.recipe, architecture)
            torch.manual_seed(seed)
            network = build(config).to(self.device)
            task = classify(network, self.data, recipe, workers=0)  # a fleet already has a process a core
            train(network, task, recipe, seed=seed, on_epoch=lambda epoch: losses.append(round(epoch.loss, 5)))
        except TrainingError as error:
            raise ChildFailure("nan", str(error)) from error
        except (ConfigError, DataError) as error:  # of these settings alone, and no reason to end the others
            raise ChildFailure("error", str(error)) from error
        measured = task.evaluate(network)
        task.close()
        return {"accuracy": measured["top1"], "top5": measured["top5"], "losses": losses}


def changed(config: NetworkConfig, recipe: Recipe, settings: dict[str, Any]) -> tuple[NetworkConfig, Recipe]:
    """A network's config and a recipe with some fields changed, of the recipe or of the config's scale. Raises
    ConfigError for a field that neither has, or a value that is impossible."""
    of_recipe = {field.name for field in fields(Recipe)}
    of_scale = {field.name for field in fields(config.scale)}
    if unknown := [name for name in settings if name not in of_recipe | of_scale]:
        raise ConfigError(
            f"there is no {', '.join(unknown)} to change: a grid takes the fields of a recipe, and of the network's "
            f"scale: {', '.join(sorted(of_scale))}"
        )
    scale = {name: value for name, value in settings.items() if name in of_scale}
    rest = {name: value for name, value in settings.items() if name not in of_scale}
    return replace(config, scale=replace(config.scale, **scale)), find_recipe(recipe, rest)
