"""The recipes: their published numbers, what they refuse, and that each of them trains."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_state import CONFIG, start

import nasnet_zoo
from nasnet_zoo.data.cifar import Pictures
from nasnet_zoo.errors import ConfigError
from nasnet_zoo.training.loop import train
from nasnet_zoo.training.optim import make_optimizer
from nasnet_zoo.training.recipe import _RANGES, Recipe
from nasnet_zoo.training.recipes import RECIPES, find_recipe, parsed_changes
from nasnet_zoo.training.tasks.classify import Classify

# TF-slim's hparams and the comments beside them (research/slim/nets/nasnet/nasnet.py), and the paper's A.6 and A.7.
# torch's momentum of a batch norm is one less TF's decay.
CIFAR10_PAPER = dict(
    epochs=600,
    batch_size=32,
    optimizer="sgd",
    learning_rate=0.025,
    schedule="cosine",
    warmup_epochs=0,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    clip_norm=5.0,
    bn_momentum=1 - 0.9,
    drop_path_keep=0.6,
    dropout=1 - 1.0,
    aux_weight=0.4,
    label_smoothing=0.0,
)
IMAGENET = dict(
    optimizer="rmsprop",
    square_decay=0.9,
    epsilon=1.0,
    momentum=0.9,
    schedule="step",
    decay_rate=0.97,
    decay_epochs=2.4,
    warmup_epochs=0,
    aux_weight=0.4,
    label_smoothing=0.1,
    clip_norm=10.0,
    bn_momentum=1 - 0.9997,
    dropout=1 - 0.5,
    ema_decay=0.9999,
    crop="inception",
    crop_area=0.05,
    brightness=32 / 255,
    saturation=0.5,
    flip=True,
)
MOBILE = dict(batch_size=50 * 32, learning_rate=0.04 * 50, weight_decay=4e-5, drop_path_keep=1.0)
LARGE = dict(batch_size=100 * 16, learning_rate=0.015 * 100, weight_decay=5e-5, drop_path_keep=0.7)


@pytest.mark.parametrize(
    "name, numbers",
    [
        ("cifar10-paper", CIFAR10_PAPER),
        ("nasnet-cifar", CIFAR10_PAPER | dict(nesterov=True)),
        ("imagenet-mobile", IMAGENET | MOBILE),
        ("imagenet-large", IMAGENET | LARGE),
    ],
)
def test_published_numbers(name, numbers):
    recipe = dataclasses.asdict(find_recipe(name))
    for field, value in numbers.items():
        assert recipe[field] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), field
    off = {"mixup": 0, "cutmix": 0, "erase": 0, "rand_augment": 0, "layer_decay": 1, "head_epochs": 0, "accumulate": 1}
    assert {field: recipe[field] for field in off} == off  # none of what came later
    assert not recipe["freeze_norms"] and recipe["sizes"] == ()


@pytest.mark.parametrize(
    "name, pictures, steps",
    [
        ("cifar10-paper", 50_000, 937_500),
        ("imagenet-mobile", 1_281_167, 250_000),
        ("imagenet-large", 1_281_167, 250_000),
    ],
)
def test_drop_path_grows_over_as_many_steps_as_tf_slims(name, pictures, steps):
    recipe = find_recipe(name)
    assert recipe.epochs * pictures / recipe.batch_size == pytest.approx(steps, rel=2e-3)


def test_the_papers_cutout_and_what_the_others_are_for():
    assert find_recipe("cifar10-paper").cutout == 16
    assert find_recipe("cifar10").drop_path_keep == 0.8 and find_recipe("cifar10").cutout == 16
    assert find_recipe("finetune").head_epochs > 0 and find_recipe("finetune").layer_decay < 1
    assert [find_recipe("scratch").head_epochs, find_recipe("scratch").layer_decay] == [0, 1.0]
    quick = find_recipe("cifar-quick")
    assert [quick.side(epoch, 32) for epoch in range(quick.epochs)] == [16] * 7 + [20] * 3 + [24] * 2 + [32]
    assert all(named.title and "\n" not in named.title for named in RECIPES.values())


# They train


def fake(count=8, side=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.randint(10, (count,), generator=generator))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_step(name):
    """A step of its batch's size is too much for a test: fewer pictures, and one epoch after those of the classifier
    alone. The rate is not 0 in it."""
    recipe = find_recipe(name, dict(batch_size=8))
    recipe = dataclasses.replace(recipe, epochs=recipe.head_epochs + 1, sizes=(), capture="off")
    network = start()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    task = Classify(fake(), recipe, CONFIG.preprocess, classes=10, workers=0)
    history = train(network, task, recipe)
    assert len(history) == recipe.epochs and all(math.isfinite(epoch.loss) for epoch in history)
    same = [key for key, value in network.state_dict().items() if torch.equal(value, before[key])]
    assert not same


@pytest.mark.parametrize("name, kind", [("cifar10", "SGD"), ("imagenet-mobile", "RMSpropTF")])
def test_the_optimiser_that_is_named(name, kind):
    assert type(make_optimizer(start(), find_recipe(name))).__name__ == kind
    adamw = make_optimizer(start(), find_recipe(name, dict(optimizer="adamw")))
    assert type(adamw).__name__ == "AdamW" and adamw.defaults["betas"] == (0.9, find_recipe(name).square_decay)


def test_mixed_and_erased_pictures_train_too():
    recipe = Recipe(2, 8, mixup=0.3, cutmix=1.0, erase=0.5, cutout=4, enlarge=True, accumulate=2, label_smoothing=0.1)
    history = train(start(), Classify(fake(), recipe, CONFIG.preprocess, classes=10), recipe)
    assert all(math.isfinite(epoch.loss) for epoch in history)
    with pytest.raises(ConfigError, match="mixup and cutmix need the number of classes"):
        Classify(fake(), recipe, CONFIG.preprocess)


# How they are found


def written(folder, value):
    path = folder / "recipe.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_by_name_or_as_it_is():
    recipe = find_recipe("cifar10")
    assert recipe == RECIPES["cifar10"].recipe and find_recipe(recipe) is recipe
    assert find_recipe(recipe, {}) == recipe and find_recipe(recipe, {"pad": 4}) == recipe


def test_old_positional_use():
    assert Recipe(20, 128, 0.1) == Recipe(epochs=20, batch_size=128, learning_rate=0.1)
    old = Recipe(20, 128, 0.1, 1.0, 0.9, 5e-4, 0.1, 5.0, 0.1, 0.8, 0.1, 0.4, 4, False, True, 8, ((0, 16),), True)
    assert (old.label_smoothing, old.clip_norm, old.drop_path_keep, old.dropout) == (0.1, 5.0, 0.8, 0.1)
    assert (old.cutout, old.sizes, old.channels_last, old.optimizer) == (8, ((0, 16),), True, "sgd")


def test_a_file_of_the_fields_that_differ(tmp_path):
    path = written(tmp_path, {"epochs": 7, "learning_rate": 1, "sizes": [[0, 16], [3, 32]], "flip": False})
    expected = Recipe(7, learning_rate=1.0, sizes=((0, 16), (3, 32)), flip=False)
    assert find_recipe(path) == find_recipe(str(path)) == expected


def test_a_file_upon_a_recipe(tmp_path):
    path = written(tmp_path, {"base": "imagenet-large", "epochs": 7, "optimizer": "sgd"})
    assert find_recipe(path) == dataclasses.replace(find_recipe("imagenet-large"), epochs=7, optimizer="sgd")
    path = written(tmp_path, {"base": "cifar-quick"})
    assert find_recipe(path) == find_recipe("cifar-quick")  # with its sizes


def test_a_checkpoints_record(tmp_path):
    recipe = find_recipe("cifar-quick", {"epochs": 20})
    record = {"name": "cifar-quick", "seed": 3, **dataclasses.asdict(recipe)}
    nasnet_zoo.save(start(), tmp_path / "checkpoint", recipe=record)
    for path in (tmp_path / "checkpoint" / "config.json", written(tmp_path, {"model": "mine", "recipe": record})):
        assert find_recipe(path) == recipe and find_recipe(path, {"pad": 1}) == dataclasses.replace(recipe, pad=1)
    shipped = find_recipe(
        Path(nasnet_zoo.__file__).parent / "assets" / "nasnet-a-cifar-small" / "config.json"
    )  # of before there were most fields
    assert shipped == find_recipe("cifar-quick", {"precision": "float32"})


def test_changes():
    changed = find_recipe("cifar10", {"epochs": 7, "sizes": [[0, 16]], "learning_rate": 1})
    assert changed == dataclasses.replace(find_recipe("cifar10"), epochs=7, sizes=((0, 16),), learning_rate=1.0)
    assert hash(changed) and changed.sizes == ((0, 16),)


@pytest.mark.parametrize("sizes", [[[0, 16], [2, 24]], [(0, 16), (2, 24)], ([0, 16], [2, 24])])
def test_lists_of_sizes_are_the_same_recipe(sizes):
    """A training that goes on compares its recipe with the one that was kept."""
    recipe = Recipe(3, sizes=sizes)
    assert recipe == Recipe(3, sizes=((0, 16), (2, 24))) and {recipe: 1}
    assert [recipe.side(epoch, 32) for epoch in range(4)] == [16, 16, 24, 24]


def test_numpys_numbers_are_numbers():
    changed = find_recipe("cifar10", {"epochs": np.int64(7), "learning_rate": np.float64(0.2)})
    assert changed == dataclasses.replace(find_recipe("cifar10"), epochs=7, learning_rate=0.2)
    assert json.dumps(dataclasses.asdict(changed))


def test_settings_of_the_command_line():
    settings = ["epochs=30", " pad = 2", "precision=auto", "compile=true", "sizes=[[0, 16]]", "learning_rate=1e-3"]
    expected = dict(epochs=30, pad=2, precision="auto", compile=True, sizes=[[0, 16]], learning_rate=1e-3)
    changes = parsed_changes(settings)
    assert changes == expected and type(changes["epochs"]) is int
    assert find_recipe("cifar10", changes).sizes == ((0, 16),)
    assert parsed_changes([]) == {} and parsed_changes(["a=b=c", "d=", 'e="3"']) == {"a": "b=c", "d": "", "e": "3"}
    assert parsed_changes(["epochs=1", "epochs=2"]) == {"epochs": 2}  # the last one
    with pytest.raises(ConfigError, match="^--set epochs: write a field's name, =, and its value, as in"):
        parsed_changes(["pad=1", "epochs"])


# What is refused


def refused(said, what, changes=None):
    with pytest.raises(ConfigError, match=said) as error:
        find_recipe(what, changes)
    assert "\n" not in str(error.value)


def test_names_and_fields_that_there_are_not(tmp_path):
    refused(r"no recipe 'cifar-quik'; there are cifar-quick, .*JSON file; did you mean cifar-quick", "cifar-quik")
    refused(r"no recipe 'nothing at all'; there are .*JSON file$", "nothing at all")
    refused(r"cannot read the recipe .*absent\.json: No such file", tmp_path / "absent.json")
    refused(r"no field 'epoch'; did you mean epochs\b.*\?$", "cifar10", {"epoch": 3})
    refused(r"no field 'zzz'; it has epochs, batch_size, ", "cifar10", {"zzz": 3})
    refused(r"no field ''; it has", "cifar10", parsed_changes(["=3"]))
    more = written(tmp_path, {"epochs": 3, "cutuot": 3})
    refused(r"recipe\.json, cutuot: there is no such field; did you mean cutout", more)
    refused(r"there is no recipe 'cifar'.*did you mean cifar10", written(tmp_path, {"base": "cifar", "epochs": 3}))
    refused(r"there is no recipe '\[1\]'", written(tmp_path, {"base": [1], "epochs": 3}))


@pytest.mark.parametrize("value", [[], [1], 3, "text", None, True])
def test_a_file_that_is_no_object(tmp_path, value):
    refused("recipe.json: a recipe is a JSON object", written(tmp_path, json.dumps(value)))


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("{}", "recipe.json, epochs: Field required"),
        ('{"epochs": "3"}', "recipe.json, epochs: "),
        ('{"epochs": 3.5}', "recipe.json, epochs: "),
        ('{"epochs": true}', "recipe.json, epochs: "),
        ('{"epochs": null}', "recipe.json, epochs: "),
        ('{"epochs": 3, "learning_rate": NaN}', "recipe.json, learning_rate: "),
        ('{"epochs": 3, "learning_rate": 1e999}', "recipe.json, learning_rate: "),
        ('{"epochs": 3, "flip": 1}', "recipe.json, flip: "),
        ('{"epochs": 3, "optimizer": "adam"}', "recipe.json, optimizer: .*'sgd', 'rmsprop' or 'adamw'"),
        ('{"epochs": 3, "sizes": [[0]]}', "recipe.json, sizes"),
        ('{"epochs": 3, "sizes": {"0": 16}}', "recipe.json, sizes"),
        ('{"epochs": -3}', "epochs is -3, and must be at least 1"),
        ('{"recipe": {"name": "mine", "epochs": 0}}', "epochs is 0, and must be at least 1"),
        ('{"epochs": 3, "recipe": "cifar10"}', "recipe.json, recipe: there is no such field"),
    ],
)
def test_files_with_something_else_in_them(tmp_path, text, said):
    refused(said, written(tmp_path, text))


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(epochs="many"), "recipe: epochs is 'many', and has to be a whole number"),
        (dict(epochs=3.0), "recipe: epochs is 3.0, and has to be a whole number"),
        (dict(epochs=True), "recipe: epochs is True, and has to be a whole number"),
        (dict(epochs=None), "recipe: epochs is None, and has to be a whole number"),
        (dict(learning_rate="fast"), "recipe: learning_rate is 'fast', and has to be a number"),
        (dict(learning_rate=float("inf")), "recipe: learning_rate is inf, and must be above 0 and finite$"),
        (dict(learning_rate=object()), "recipe: learning_rate is <object .*>, and has to be a number"),
        (dict(flip=1), "recipe: flip is 1, and has to be True or False"),
        (dict(flip="True"), "recipe: flip is 'True', and has to be True or False"),
        (dict(sizes=3), "recipe: sizes is 3, and has to be several"),
        (dict(sizes=((0, 16, 3),)), r"recipe: sizes is \(\(0, 16, 3\),\), and has to be several"),
        (dict(sizes=((-1, 16),)), "recipe: sizes are pairs of an epoch, from 0, and a side of at least one pixel"),
        (dict(sizes=((0, 0),)), "recipe: sizes are pairs of an epoch, from 0, and a side of at least one pixel"),
        (dict(optimizer="adam"), "recipe: unknown optimizer 'adam'; choose one of sgd, rmsprop, adamw"),
        (dict(schedule=["step"]), r"recipe: unknown schedule \['step'\]; choose one of cosine, exponential"),
        (dict(crop="centre"), "recipe: unknown crop 'centre'; choose one of pad, inception"),
        (dict(precision="float16"), "recipe: unknown precision 'float16'"),
        (dict(separable="fast"), "recipe: unknown separable 'fast'"),
        (dict(capture="on"), "recipe: unknown capture 'on'; choose one of auto, off"),
    ],
)
def test_values_of_another_type(changes, said):
    refused(said, "cifar10", changes)
    with pytest.raises(ConfigError, match=said):
        Recipe(**{"epochs": 3} | changes)


FIELDS = [(name, fits, words) for names, fits, words in _RANGES for name in names.split()]
TRIED = [-math.inf, -1, -1e-9, 0, 1e-9, 0.5, 1, 1 + 1e-9, 2, 30, 31, 999, math.inf, math.nan]


@pytest.mark.parametrize("name, fits, words", FIELDS, ids=[field[0] for field in FIELDS])
def test_impossible_values_of_every_field(name, fits, words):
    """Of the values that its type allows, a field takes what its row says, and says of the others what it must be."""
    kind = Recipe.__dataclass_fields__[name].type
    values = [value for value in TRIED if kind is float or isinstance(value, int)]
    impossible = [value for value in values if not fits(value)]
    assert impossible and len(impossible) < len(values)
    for value in values:
        fields = {"epochs": 1000} | {name: value}  # more than the head_epochs that are tried
        if name == "accumulate" and value > 0:
            fields["batch_size"] = 2 * value
        if value in impossible:
            with pytest.raises(ConfigError, match=f"^recipe: {name} is .*, and must {words}$"):
                Recipe(**fields)
        else:
            assert getattr(Recipe(**fields), name) == value


@pytest.mark.parametrize(
    "wrong",
    [
        *(dict(epochs=0), dict(epochs=-1), dict(batch_size=1), dict(batch_size=0), dict(accumulate=0)),
        *(dict(learning_rate=0), dict(learning_rate=-0.1), dict(epsilon=0), dict(decay_epochs=0)),
        *(dict(drop_path_keep=0), dict(drop_path_keep=1.1), dict(bn_momentum=0), dict(layer_decay=1.5)),
        *(dict(layer_decay=0), dict(crop_area=0), dict(crop_area=1.01), dict(decay_rate=0), dict(decay_rate=1.1)),
        *(dict(momentum=0), dict(momentum=1), dict(square_decay=1), dict(square_decay=0)),
        *(dict(dropout=1), dict(dropout=-0.1), dict(label_smoothing=1), dict(brightness=1), dict(saturation=1)),
        *(dict(ema_decay=1), dict(erase=1.1), dict(erase=-0.1), dict(rand_augment=31), dict(rand_augment=-1)),
        *(dict(pad=-1), dict(cutout=-1), dict(weight_decay=-1e-9), dict(aux_weight=-1), dict(warmup_epochs=-1)),
        *(dict(clip_norm=-1), dict(clip_norm=math.inf), dict(head_epochs=-1), dict(mixup=-1), dict(cutmix=math.nan)),
    ],
    ids=str,
)
def test_impossible_values_spelled_out(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"^recipe: {name} is {value}, and must "):
        Recipe(**{"epochs": 9} | wrong)


def test_every_number_of_a_recipe_has_its_range():
    numbers = {field.name for field in dataclasses.fields(Recipe) if field.type in (int, float)}
    assert len(numbers) > 20 and sorted(field[0] for field in FIELDS) == sorted(numbers)


@pytest.mark.parametrize("epochs, head", [(1, 1), (3, 3), (3, 4)])
def test_the_classifier_alone_needs_fewer_epochs_than_there_are(epochs, head):
    with pytest.raises(ConfigError, match=f"head_epochs {head} must be fewer than the {epochs} epochs"):
        Recipe(epochs, head_epochs=head)
    assert Recipe(head + 1, head_epochs=head) and Recipe(1, head_epochs=0)


@pytest.mark.parametrize("batch_size, accumulate", [(128, 3), (10, 4), (4, 4), (2, 2), (8, 16)])
def test_parts_that_a_batch_does_not_have(batch_size, accumulate):
    """Nor may a part be of one picture, which a batch norm cannot take."""
    said = f"accumulate {accumulate} does not divide batch_size {batch_size} into equal parts of at least 2"
    with pytest.raises(ConfigError, match=said):
        Recipe(3, batch_size, accumulate=accumulate)
    assert Recipe(3, 2 * accumulate, accumulate=accumulate)


def test_a_file_may_leave_the_epochs_to_the_command(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"learning_rate": 0.3}')
    assert find_recipe(path, {"epochs": 7}) == Recipe(7, learning_rate=0.3)
    with pytest.raises(ConfigError, match="mine.json, epochs: Field required"):
        find_recipe(path)


def test_sizes_are_in_the_order_of_their_epochs():
    recipe = Recipe(20, sizes=((10, 24), (0, 16)))
    assert [recipe.side(epoch, 32) for epoch in (0, 9, 10, 19)] == [16, 16, 24, 24]
