"""The training loop: it learns, resumes exactly, augments and schedules as it says."""

import dataclasses

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

import nasnet_zoo
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.cifar import Pictures, load_cifar10
from nasnet_zoo.errors import CheckpointError, ConfigError, DataError, ZooError
from nasnet_zoo.training import loop, state
from nasnet_zoo.training.augment import Draws, augmented, blanked, epoch_batches, normalized
from nasnet_zoo.training.begin import Request, begin
from nasnet_zoo.training.evaluate import evaluate
from nasnet_zoo.training.loop import train as train_task
from nasnet_zoo.training.optim import schedule
from nasnet_zoo.training.recipe import Recipe
from nasnet_zoo.training.tasks.classify import Classify
from nasnet_zoo.util.files import locked

RECIPE = Recipe(3, batch_size=16, learning_rate=0.2, warmup_epochs=0.5, pad=2, drop_path_keep=0.8, dropout=0.1)


def train(network, pictures, recipe, **options):
    return train_task(network, Classify(pictures, recipe, network.config.preprocess), recipe, **options)


def tiny():
    torch.manual_seed(1)
    return nasnet_zoo.create("nasnet-a-cifar", filters=4, stem_channels=8, stages=(1, 1, 1), num_classes=4)


def four_colours(n: int = 96, side: int = 12) -> Pictures:
    """Noise around one of four colours: learnable in a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (n,), generator=generator)
    base = torch.tensor([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]])[labels].view(n, 3, 1, 1)
    noise = torch.randint(-40, 40, (n, 3, side, side), generator=generator)
    return Pictures((base + noise).clamp(0, 255).to(torch.uint8), labels)


def test_it_learns():
    network, pictures = tiny(), four_colours()
    history = train(network, pictures, dataclasses.replace(RECIPE, epochs=6, drop_path_keep=1.0, dropout=0.0))
    assert history[-1].loss < history[0].loss / 2
    assert evaluate(network, pictures)[0] > 0.9
    assert not network.training


def test_resumed_training_is_the_uninterrupted_one(tmp_path):
    pictures = four_colours()
    whole = tiny()
    history = train(whole, pictures, RECIPE, seed=3)

    class Stop(Exception):
        pass

    def stop(epoch, step, steps):
        if (epoch, step) == (1, 2):
            raise Stop

    with pytest.raises(Stop):
        train(tiny(), pictures, RECIPE, seed=3, folder=tmp_path, on_step=stop)
    resumed = tiny()
    seen = []
    again = train(resumed, pictures, RECIPE, seed=3, folder=tmp_path, on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [2, 3]
    assert again == history
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_folder_of_another_training_is_refused(tmp_path):
    train(tiny(), four_colours(), RECIPE, seed=3, folder=tmp_path)
    with pytest.raises(CheckpointError, match="another network, recipe or seed"):
        train(tiny(), four_colours(), RECIPE, seed=4, folder=tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="delete it to start over"):
        train(tiny(), four_colours(), RECIPE, seed=3, folder=tmp_path)


def test_a_full_disk_is_one_sentence_and_the_state_before_stays(tmp_path, monkeypatch):
    """The second epoch's state does not fit; the first's is there, and the training goes on from it."""
    save_file, folder, kept = state.save_file, tmp_path / "run", []

    def full(*arguments, **options):
        if kept:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(*arguments, **options)

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(ZooError, match="state.safetensors: the disk is full"):
        train(
            *(tiny(), four_colours(), RECIPE),
            folder=folder,
            on_epoch=lambda epoch: kept.append((folder / "state.safetensors").read_bytes()),
        )
    assert [path.read_bytes() for path in folder.iterdir()] == kept and len(kept) == 1
    monkeypatch.undo()
    seen = []
    train(tiny(), four_colours(), RECIPE, folder=folder, on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [2, 3]


def test_a_state_of_somebody_elses_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "state.safetensors")
    with pytest.raises(CheckpointError, match="holds no training"):
        train(tiny(), four_colours(), RECIPE, folder=tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [dict(momentum=0), dict(label_smoothing=2), dict(pad=-1), dict(sizes=((0, 0),)), dict(weight_decay=-1)],
)
def test_recipes_that_make_no_sense(wrong):
    with pytest.raises(ConfigError, match=f"recipe: .*{next(iter(wrong))}"):
        Recipe(1, **wrong)


def test_an_auxiliary_head_on_too_small_a_picture_is_one_sentence():
    network = nasnet_zoo.create("nasnet-a-cifar-small", aux_size=(16, 16))
    assert len(network(torch.randn(2, 3, 32, 32))) == 2
    with pytest.raises(ConfigError, match=r"made for maps of \(16, 16\) and gets \(8, 8\): train on larger pictures"):
        network(torch.randn(2, 3, 16, 16))


def test_a_training_that_cannot_be_ends_before_it_begins(tmp_path, monkeypatch):
    def ready(folder, **options):
        return begin(Request(folder, **{"model": "nasnet-a-cifar-small", **options}), "cpu")

    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", lambda *arguments, **options: four_colours(256, 32))
    run, network, data, _ = ready(tmp_path / "b")
    with locked(tmp_path / "b" / "training"), pytest.raises(ZooError, match="Another process is working on"):
        run.perform(network, data, on_step=lambda *step: pytest.fail("it began"))
    (tmp_path / "c").write_text("a file")
    with pytest.raises(ZooError, match="something else has this name"):
        run, network, data, _ = ready(tmp_path / "c")
        run.perform(network, data, on_step=lambda *step: pytest.fail("it began"))
    with pytest.raises(DataError, match="a batch has 512 pictures and the data 256: give a batch_size of at most 256"):
        run, network, data, _ = ready(tmp_path / "d", changes={"batch_size": 512})
        run.perform(network, data, on_step=lambda *step: pytest.fail("it began"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


@pytest.mark.parametrize(("capability", "slow"), [("AVX2", True), ("AVX512", False)])
def test_bfloat16_on_a_processor_that_imitates_it_is_told_of(tmp_path, monkeypatch, capability, slow):
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", lambda *arguments, **options: four_colours(256, 32))
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    request = Request(tmp_path, model="nasnet-a-cifar-small", changes={"precision": "bfloat16"})
    notes = begin(request, "cpu")[-1]
    assert any("--set precision=float32 is far faster" in note for note in notes) == slow


def test_schedule():
    recipe = Recipe(10, learning_rate=0.4, warmup_epochs=2)
    assert schedule(recipe, 2) == pytest.approx(0.4)
    assert schedule(recipe, 6) == pytest.approx(0.2)
    assert schedule(recipe, 10) == pytest.approx(0)
    assert 0 < schedule(recipe, 0) < schedule(recipe, 1) < 0.4


def test_augmentation_crops_flips_and_cuts():
    side, recipe = 8, Recipe(1, pad=2, flip=True)
    image = torch.arange(3 * side * side, dtype=torch.uint8).view(1, 3, side, side)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))[0]
    crops = {padded[:, y : y + side, x : x + side].numpy().tobytes() for y in range(5) for x in range(5)}
    crops |= {padded[:, y : y + side, x : x + side].flip(2).numpy().tobytes() for y in range(5) for x in range(5)}
    out = augmented(image.expand(600, -1, -1, -1), recipe, Draws(600, torch.Generator().manual_seed(0)))
    assert {picture.numpy().tobytes() for picture in out} == crops  # all 25 offsets, both ways, and nothing else


@pytest.mark.parametrize("side, cutout", [(8, 4), (8, 1), (9, 3)])
def test_cutout_blanks_a_square_to_the_mean(side, cutout):
    ones = torch.ones(64, 3, side, side)
    cut = blanked(ones, Recipe(1, cutout=cutout), Draws(64, torch.Generator().manual_seed(0)))
    assert torch.equal(sides(cut).max(0).values, torch.tensor([cutout, cutout]))
    assert sides(cut).min() == (cutout + 1) // 2  # less at the border: the centre is anywhere in the picture
    pictures = Pictures(torch.full((16, 3, side, side), 77, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64))
    prepared = Preprocess((side, side), mean=(0.5, 0.25, 0.1), std=(0.5, 0.25, 1.0))
    recipe = Recipe(1, batch_size=16, pad=0, cutout=cutout)
    ((images, _),) = epoch_batches(pictures, recipe, prepared, torch.Generator().manual_seed(0), side)
    shown = {round(value, 5) for value in images[:, 0].flatten().tolist()}
    assert shown == {0.0, round((77 / 255 - 0.5) / 0.5, 5)}  # 0 is the mean's value, and no black


def sides(images):
    """(height, width) of what is blanked in each picture of ones, which is one rectangle."""
    blank = images[:, 0] == 0
    found = torch.stack([blank.any(2).sum(1), blank.any(1).sum(1)], 1)
    assert torch.equal(found.prod(1), blank.sum((1, 2)))
    return found


def test_an_epoch_shows_every_picture_at_most_once():
    pictures = Pictures(torch.zeros(50, 3, 8, 8, dtype=torch.uint8), torch.arange(50))
    generator = torch.Generator().manual_seed(0)
    batches = list(epoch_batches(pictures, Recipe(1, batch_size=16), Preprocess((8, 8)), generator, 6))
    assert [tuple(images.shape) for images, _ in batches] == [(16, 3, 6, 6)] * 3
    labels = torch.cat([labels for _, labels in batches])
    assert len(labels.unique()) == 48


def test_normalized():
    prepared = Preprocess((1, 1), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    for _ in range(2):
        assert normalized(white, prepared).flatten().tolist() == [1.0, 3.0, 1.0]
    with_lists = Preprocess([1, 1], mean=[0.0, 0.25, 0.5], std=[0.5, 0.25, 1.0])
    assert normalized(white, with_lists).flatten().tolist() == [2.0, 3.0, 0.5]
    assert normalized(white[:, :1], prepared).item() == pytest.approx((1 - 0.25) / (1.75 / 3))


def test_pictures_that_are_first_normalised_in_an_evaluation_can_be_learned_from():
    prepared, image = Preprocess((1, 1), mean=(0.125,) * 3), torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    with torch.inference_mode():
        normalized(image, prepared)
    weight = torch.ones(3, requires_grad=True)
    (normalized(image, prepared).flatten() * weight).sum().backward()
    assert weight.grad.tolist() == [-0.25] * 3


class Waits(TorchDispatchMode):
    """Counts what a GPU would have to be waited for: tensors of numbers from Python, and numbers read from tensors."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.count += operation in (torch.ops.aten.lift_fresh.default, torch.ops.aten._local_scalar_dense.default)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_no_step_waits_for_the_device(monkeypatch, optimizer):
    monkeypatch.setattr(loop, "LOOK_SECONDS", float("inf"))
    more = dict(cutout=4, erase=0.5, enlarge=True, label_smoothing=0.1, ema_decay=0.9)
    recipe = dataclasses.replace(RECIPE, epochs=2, optimizer=optimizer, **more)
    counts = {0: [], 1: []}
    with Waits() as waits:
        train(tiny(), four_colours(), recipe, on_step=lambda epoch, *_: counts[epoch].append(waits.count))
    assert waits.count > 0  # of the first normalisation, and between the epochs
    assert all(len(each) == 6 and len({*each}) == 1 for each in counts.values()), counts


def test_evaluate_counts_top1_and_top5():
    network, pictures = tiny().eval(), four_colours(40)
    logits = network(normalized(pictures.images, network.config.preprocess))
    expected = (logits.argmax(1) == pictures.labels).float().mean().item()
    top1, top5 = evaluate(network, pictures, batch_size=7)
    assert top1 == pytest.approx(expected) and top5 == 1.0  # four classes: always among the best five


@pytest.mark.parametrize("wrong", [dict(epochs=0), dict(epochs=1, batch_size=1), dict(epochs=1, drop_path_keep=0)])
def test_impossible_recipes(wrong):
    with pytest.raises(ConfigError, match="recipe"):
        Recipe(**wrong)


def test_missing_and_wrong_cifar10(tmp_path):
    with pytest.raises(DataError, match="cifar-10-python.tar.gz"):
        load_cifar10(tmp_path, train=True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"not a batch")
    with pytest.raises(DataError, match="does not hold the official CIFAR-10"):
        load_cifar10(tmp_path, train=False)


def test_a_wrong_recipe_is_told_before_the_data_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("nasnet_zoo.data.sets.cifar10_pictures", lambda *_, **__: pytest.fail("they were fetched"))
    with pytest.raises(ConfigError, match="a recipe has no field 'lr'"):
        begin(Request(tmp_path / "run", model="nasnet-a-cifar-small", changes={"lr": 1}), "cpu")
