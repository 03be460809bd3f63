"""The commands that train."""

from pathlib import Path
from typing import Annotated

import typer

from .app import ConfigOption, DeviceOption, app, chosen_device, console, progress_bar, resumable


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder; a training that it holds is resumed.")],
    model: ConfigOption,
    recipe: Annotated[str, typer.Option(help="The name of a recipe.")] = "cifar-quick",
    data: Annotated[str, typer.Option(help="cifar10, or a folder that holds it.")] = "cifar10",
    seed: Annotated[int, typer.Option(help="The seed of the first weights and of the augmentation.")] = 0,
    device: DeviceOption = None,
) -> None:
    """Train a model. After an interruption, the same command continues where it stopped."""
    from ..lookup import find_config
    from ..training.run import train_cifar10

    with resumable(), progress_bar() as progress:
        task = progress.add_task("starting", total=None, unit="pictures")

        def on_step(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total, description=note)

        folder = None if data == "cifar10" else data
        top1, _ = train_cifar10(find_config(model), recipe, out, folder, seed, chosen_device(device), on_step)
    console.print(f"wrote {out / 'checkpoint'}: top-1 {top1:.2%} on the test pictures", soft_wrap=True)
