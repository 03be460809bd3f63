import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_rule import golden_pictures, golden_value

from nasnet_zoo import convert
from nasnet_zoo.arch.cells import CellScale
from nasnet_zoo.arch.config import NetworkConfig
from nasnet_zoo.arch.genotype import Block, Cell, Edge, Genotype
from nasnet_zoo.arch.genotypes import AMOEBANET_A, NASNET_A, PNASNET_5
from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.convert.names import keras_name, slim_sources, torch_name
from nasnet_zoo.errors import ConversionError
from nasnet_zoo.networks.build import build

PREPROCESS = Preprocess((32, 32))


def config(genotype, scale, num_classes):
    return NetworkConfig(genotype, scale, PREPROCESS, num_classes)


CONFIGS = {
    "nasnet-a-mobile": config(NASNET_A, CellScale("imagenet", 32, 44, (4, 4, 4)), 1001),
    "nasnet-a-large": config(NASNET_A, CellScale("imagenet", 96, 168, (6, 6, 6), skip_reduction_input=True), 1001),
    "nasnet-a-cifar": config(NASNET_A, CellScale("cifar", 96, 32, (6, 6, 6), bn_eps=1e-5), 10),
    "pnasnet-5-mobile": config(PNASNET_5, CellScale("imagenet", 32, 54, (3, 2, 2)), 1001),
    "pnasnet-5-large": config(PNASNET_5, CellScale("imagenet", 96, 216, (4, 3, 3)), 1001),
}
TINY = config(NASNET_A, CellScale("imagenet", 4, 8, (2, 1, 1)), 1000)
TINY_AUX = replace(TINY, scale=replace(TINY.scale, aux_size=(14, 14)))
TINY_PNASNET = config(PNASNET_5, CellScale("imagenet", 4, 8, (1, 1, 1)), 1000)
TINY_CIFAR = config(NASNET_A, CellScale("cifar", 6, 4, (1, 1, 1)), 10)
EMA = "/ExponentialMovingAverage"


# TF-slim's variables by the rule of the reference logits


def slim_shape(source, shape):
    """The shape TF-slim's variable has for a tensor of ours."""
    if source.layout == "conv":
        return (shape[2], shape[3], shape[1], shape[0])
    if source.layout == "depthwise":
        return (shape[2], shape[3], shape[0], shape[1])
    return tuple(reversed(shape))


def slim_variables(config, numbered=False, background=False):
    state = build(config, empty=True).state_dict()
    shapes = {s.name: slim_shape(s, tuple(state[s.key].shape)) for s in slim_sources(config, numbered)}
    if background:
        shapes |= {
            name: (*shape[:-1], shape[-1] + 1) for name, shape in shapes.items() if "/FC/" in name
        }  # of both classifiers
    return {name: golden_value(name, shape) for name, shape in shapes.items()}


def equal(a, b):
    assert list(a) == list(b)
    assert all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.fixture(scope="module")
def tiny():
    return slim_variables(TINY)


@pytest.fixture(scope="module")
def tiny_state(tiny):
    return convert.from_tf_slim(tiny, TINY)


# Against the logits of TF-slim itself


def flattened(tree, scope=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{scope}{name}/")
        else:
            yield scope + name, tuple(value)


def logits_of(model, variables, size):
    network = build(CONFIGS[model], empty=True)
    network.load_state_dict(convert.from_tf_slim(variables, CONFIGS[model]), assign=True)
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(golden_pictures(*size))).numpy()


def agrees(logits, expected):
    assert logits.shape == expected.shape
    assert abs(logits - expected).max() <= 1e-5 * abs(expected).max()


@pytest.mark.parametrize("case", ["nasnet-a-cifar@32x32", "nasnet-a-mobile@160x192"])
def test_logits_of_tf_slim(golden, case):
    model, size = case.split("@")
    variables = dict(flattened(json.loads((golden / "slim-variables.json").read_text())[model]))
    variables = {name: golden_value(name, shape) for name, shape in variables.items()}
    with np.load(golden / "slim-logits.npz") as expected:
        agrees(logits_of(model, variables, map(int, size.split("x"))), expected[case])


@pytest.mark.slow
@pytest.mark.parametrize("model", CONFIGS)
def test_all_logits_of_tf_slim(shared, model):
    shapes = json.loads((shared / "golden" / "visible.variables.json").read_text())[model]
    variables = {name: golden_value(name, shape) for name, shape in shapes}
    with np.load(shared / "golden" / "visible.npz") as expected:
        cases = [case for case in expected if case.startswith(f"{model}@")]
        assert cases
        for case in cases:
            agrees(logits_of(model, variables, map(int, case.split("@")[1].split("x"))), expected[case])


@pytest.mark.parametrize("model", CONFIGS)
def test_variable_names_and_shapes_of_tf_slim(shared, model):
    shapes = json.loads((shared / "golden" / "visible.variables.json").read_text())[model]
    state = build(CONFIGS[model], empty=True).state_dict()
    sources = slim_sources(CONFIGS[model], model.startswith("pnasnet"))
    ours = {source.name: slim_shape(source, tuple(state[source.key].shape)) for source in sources}
    assert {name: tuple(shape) for name, shape in shapes} == ours
    assert [source.key for source in sources if source.key not in state] == [] and len(sources) == len(state)


def test_the_result_is_float32_and_fits(tiny_state):
    build(TINY).load_state_dict(tiny_state, strict=True)
    assert {value.dtype for value in tiny_state.values()} == {torch.float32}
    assert all(value.is_contiguous() for value in tiny_state.values())


def test_layouts(tiny, tiny_state):
    """Where single weights end up: (height, width, in, out), (height, width, channels, 1) and (in, out)."""
    cell, block = "cell_0/comb_iter_0/left/separable_5x5_1", "cells.normal_0.blocks.0.left"
    assert tiny_state["stem.0.conv.weight"][3, 1, 0, 2] == tiny["conv0/weights"][0, 2, 1, 3]
    assert tiny_state[f"{block}.depthwise_1.weight"][5, 0, 4, 1] == tiny[f"{cell}/depthwise_weights"][4, 1, 5, 0]
    assert tiny_state[f"{block}.pointwise_1.weight"][7, 2, 0, 0] == tiny[f"{cell}/pointwise_weights"][0, 0, 2, 7]
    assert tiny_state["classifier.weight"][999, 5] == tiny["final_layer/FC/weights"][5, 999]
    assert tiny_state["stem.0.bn.running_var"][1] == tiny["conv0_bn/moving_variance"][1]


def test_float64_variables_and_tensors_are_taken(tiny, tiny_state):
    equal(convert.from_tf_slim({name: value.astype(np.float64) for name, value in tiny.items()}, TINY), tiny_state)


def test_the_caller_keeps_its_variables(tiny):
    given = {name: value.copy() for name, value in tiny.items()}
    state = convert.from_tf_slim(given, TINY)
    for value in state.values():
        value.zero_()
    assert set(given) == set(tiny)
    assert convert.from_tf_slim(tiny, TINY)["classifier.weight"].abs().max() > 0


# Names in TensorFlow's checkpoints


def test_moving_averages_are_used_where_there_is_nothing_else(tiny, tiny_state):
    equal(convert.from_tf_slim({name + EMA: value for name, value in tiny.items()}, TINY), tiny_state)


@pytest.mark.parametrize("average_first", [False, True])
@pytest.mark.parametrize("scope", ["/FC/", "/fully_connected/"])
def test_plain_variables_come_before_moving_averages(tiny, tiny_state, average_first, scope):
    plain = {name.replace("/FC/", scope): value for name, value in tiny.items()}
    averages = {name + EMA: value + 1 for name, value in plain.items()}
    variables = averages | plain if average_first else plain | averages
    equal(convert.from_tf_slim(variables, TINY), tiny_state)


def test_fully_connected_is_the_older_name_of_fc(tiny, tiny_state):
    renamed = {name.replace("/FC/", "/fully_connected/"): value for name, value in tiny.items()}
    assert set(renamed) != set(tiny)
    equal(convert.from_tf_slim(renamed, TINY), tiny_state)


@pytest.mark.parametrize("suffix", ["/RMSProp", "/RMSProp_1", "/Momentum", EMA])
def test_training_state_is_left_out(tiny, tiny_state, suffix):
    slots = {name + suffix: value * 0 for name, value in tiny.items()}
    equal(convert.from_tf_slim(tiny | slots | {"global_step": np.int64(250_000)}, TINY), tiny_state)


def test_auxiliary_variables_are_left_out_or_used(tiny_state):
    variables = slim_variables(TINY_AUX)
    assert sum(name.startswith("aux_2/aux_logits/") for name in variables) == 12  # after cell_2
    equal(convert.from_tf_slim(variables, TINY), tiny_state)
    state = convert.from_tf_slim(variables, TINY_AUX)
    assert {key for key in state if key.startswith("aux.")} == set(state) - set(tiny_state)
    assert state["aux.reduce.conv.weight"].shape == (768, 128, 4, 4)
    build(TINY_AUX).load_state_dict(state)


def test_auxiliary_variables_can_be_missing_only_where_they_are_not_wanted(tiny):
    with pytest.raises(ConversionError, match="12 missing .*aux_"):
        convert.from_tf_slim(tiny, TINY_AUX)


# The background class


def test_the_background_class_is_dropped():
    variables = slim_variables(TINY_AUX, background=True)
    assert variables["final_layer/FC/weights"].shape[1] == 1001
    state = convert.from_tf_slim(variables, TINY_AUX)
    assert state["classifier.weight"].shape[0] == state["aux.classifier.bias"].shape[0] == 1000
    assert np.array_equal(state["classifier.weight"], variables["final_layer/FC/weights"].T[1:])
    assert np.array_equal(state["classifier.bias"], variables["final_layer/FC/biases"][1:])
    aux = next(name for name in variables if name.startswith("aux") and name.endswith("FC/biases"))
    assert np.array_equal(state["aux.classifier.bias"], variables[aux][1:])


def test_the_background_class_is_kept_where_it_is_wanted():
    wide = replace(TINY, num_classes=1001)
    variables = slim_variables(wide)
    assert np.array_equal(convert.from_tf_slim(variables, wide)["classifier.bias"], variables["final_layer/FC/biases"])


def test_only_imagenet_has_a_background_class():
    variables = slim_variables(replace(TINY, num_classes=11))
    with pytest.raises(ConversionError, match="final_layer/FC/weights"):
        convert.from_tf_slim(variables, replace(TINY, num_classes=10))


# What does not fit


def test_missing_left_over_and_misshapen_variables_are_listed(tiny):
    variables = dict(tiny)
    del variables["conv0/weights"], variables["cell_1/1x1/weights"]
    with pytest.raises(ConversionError, match=r"2 missing \(cell_1/1x1/weights, conv0/weights\); none left over"):
        convert.from_tf_slim(variables, TINY)
    with pytest.raises(ConversionError, match=r"none missing; 1 left over \(cell_9/1x1/weights\)"):
        convert.from_tf_slim(tiny | {"cell_9/1x1/weights": np.zeros(1)}, TINY)
    for wrong in (np.zeros((3, 3, 3, 5)), np.zeros(4), np.zeros(()), np.zeros((4, 3, 3, 3)), np.zeros((0, 3, 3, 4))):
        with pytest.raises(ConversionError, match=r"1 of another shape \(conv0/weights .*expected \(4, 3, 3, 3\)"):
            convert.from_tf_slim(tiny | {"conv0/weights": wrong.astype(np.float32)}, TINY)


@pytest.mark.parametrize("variables", [{}, {"x": np.zeros(3)}])
def test_something_else_altogether(variables):
    with pytest.raises(ConversionError, match="missing .*, \\.\\.\\.") as error:
        convert.from_tf_slim(variables, TINY)
    assert len(str(error.value)) < 1000


def test_another_depth_or_width_is_refused(tiny):
    for scale in (replace(TINY.scale, stages=(1, 1, 1)), replace(TINY.scale, filters=16)):
        with pytest.raises(ConversionError, match="do not fit"):
            convert.from_tf_slim(tiny, replace(TINY, scale=scale))


def combined(combine):
    cell = Cell((Block(Edge(0, "identity"), Edge(1, "identity"), combine),), (2,))
    return Genotype(cell, cell)


NAMELESS = {
    "nds style": replace(TINY, architecture=replace(TINY.architecture, style="nds")),
    "nds stem": replace(TINY, scale=replace(TINY.scale, stem="imagenet-nds")),
    "no such op": replace(TINY, architecture=AMOEBANET_A),
    "no such combine": replace(TINY, architecture=combined("concat")),
}


@pytest.mark.parametrize("other", NAMELESS.values(), ids=NAMELESS)
def test_configs_without_names_in_tf_slim(tiny, other):
    for read in (convert.from_tf_slim, convert.from_timm, convert.from_cadene):
        with pytest.raises(ConversionError):
            read(tiny, other)


# Keras


def keras_file(path, variables, config, prefix="model_weights/", suffix=":0"):
    """A file in Keras's legacy layout: a group per layer, and in it `layer/leaf:0` once more."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
        for name, value in variables.items():
            layer, leaf = keras_name(name, config.scale.stages).split("/")
            file[f"{prefix}{layer}/{layer}/{leaf}{suffix}"] = value
    return path


@pytest.mark.parametrize("layout", [("", ":0"), ("model_weights/", ":0"), ("", "")])
def test_keras_is_the_same_as_tf_slim(tmp_path, tiny, tiny_state, layout):
    path = keras_file(tmp_path / "a.h5", tiny, TINY, *layout)
    equal(convert.from_keras(path, TINY), tiny_state)
    equal(convert.from_keras(str(path), TINY), tiny_state)


def test_keras_names_and_shapes_of_the_published_mobile(shared):
    published = json.loads((shared / "data" / "keras-nasnet-mobile.json").read_text())
    theirs = {"/".join(name.split("/")[-2:]): tuple(value["shape"]) for name, value in published.items()}
    assert len(theirs) == len(published) == 1126
    mobile = replace(CONFIGS["nasnet-a-mobile"], num_classes=1000)
    state = build(mobile, empty=True).state_dict()
    ours = {
        keras_name(source.name, mobile.scale.stages): slim_shape(source, tuple(state[source.key].shape))
        for source in slim_sources(mobile, False)
    }
    assert ours == theirs


def test_keras_names_of_the_large_network():
    """Cells 0-5, reduce_6, 7-12, reduce_12, 13-18."""
    names = {keras_name(s.name, (6, 6, 6)) for s in slim_sources(CONFIGS["nasnet-a-large"], False)}
    cells = {name.split("/")[0].removeprefix("normal_conv_1_") for name in names if name.startswith("normal_conv_1_")}
    assert cells == {str(n) for n in (*range(6), *range(7, 13), *range(13, 19))}
    assert {f"reduction_conv_1_{n}/kernel" for n in ("stem_1", "stem_2", "reduce_6", "reduce_12")} <= names


def test_keras_files_that_are_none(tmp_path, tiny):
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with pytest.raises(ConversionError, match="a.h5"):
        convert.from_keras(path, TINY)
    path.write_bytes(b"not an HDF5 file")
    with pytest.raises(ConversionError, match="a.h5"):
        convert.from_keras(path, TINY)
    keras_file(path, tiny, TINY)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ConversionError, match="a.h5"):
        convert.from_keras(path, TINY)


def test_keras_3_files_are_named_as_such(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 8), np.float32)
    with pytest.raises(ConversionError, match="a.weights.h5 is in Keras 3's .weights.h5 layout"):
        convert.from_keras(tmp_path / "a.weights.h5", TINY)


def test_keras_files_with_what_is_no_weight(tmp_path, tiny):
    h5py = pytest.importorskip("h5py")
    path = keras_file(tmp_path / "a.h5", tiny, TINY, prefix="")
    with h5py.File(path, "a") as file:
        file["stem_bn1/stem_bn1/extra:0"] = "text"
    with pytest.raises(ConversionError, match="a.h5: .*extra.* is no weight of a NASNet"):
        convert.from_keras(path, TINY)


def test_keras_files_that_do_not_fit(tmp_path, tiny):
    variables = dict(tiny)
    del variables["conv0/weights"]
    with pytest.raises(ConversionError, match=r"1 missing \(stem_conv1/kernel\)"):
        convert.from_keras(keras_file(tmp_path / "a.h5", variables, TINY), TINY)
    variables["conv0/weights"] = np.zeros((3, 3, 3, 9), np.float32)
    with pytest.raises(ConversionError, match="stem_conv1/kernel"):
        convert.from_keras(keras_file(tmp_path / "b.h5", variables, TINY), TINY)


@pytest.mark.parametrize("other", [TINY_PNASNET, TINY_AUX, TINY_CIFAR, *NAMELESS.values()])
def test_keras_has_nasnet_a_only(tmp_path, tiny, other):
    path = keras_file(tmp_path / "a.h5", tiny, TINY)
    with pytest.raises(ConversionError):
        convert.from_keras(path, other)


# timm and Cadene


def port(variables, config, pnasnet=False, gaps=0):
    """What timm and Cadene hold: our axes under their names."""
    state = convert.from_tf_slim(variables, replace(config, num_classes=len(variables["final_layer/FC/biases"])))
    theirs = {torch_name(s.name, pnasnet=pnasnet, gaps=gaps): state[s.key] for s in slim_sources(config, pnasnet)}
    assert len(theirs) == len(state)
    return theirs


COUNTERS = {"conv0.bn.num_batches_tracked": torch.tensor(0)}


@pytest.mark.parametrize("read", [convert.from_timm, convert.from_cadene])
def test_the_ports_are_the_same_as_tf_slim(tiny, tiny_state, read):
    equal(read(port(tiny, TINY) | COUNTERS, TINY), tiny_state)


@pytest.mark.parametrize("read", [convert.from_timm, convert.from_cadene])
def test_pnasnets_of_the_ports(read):
    variables = slim_variables(TINY_PNASNET, numbered=True)
    expected = convert.from_tf_slim(variables, TINY_PNASNET)
    equal(read(port(variables, TINY_PNASNET, pnasnet=True), TINY_PNASNET), expected)


@pytest.mark.parametrize("model, name", [("nasnet-a-large", "nasnetalarge"), ("pnasnet-5-large", "pnasnet5large")])
def test_keys_and_shapes_of_timm(model, name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False, num_classes=1001).state_dict()
    theirs = {key: value.shape for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    state = build(CONFIGS[model], empty=True).state_dict()
    pnasnet = model.startswith("pnasnet")
    sources = slim_sources(CONFIGS[model], pnasnet)
    assert {torch_name(s.name, pnasnet=pnasnet): state[s.key].shape for s in sources} == theirs


@pytest.mark.parametrize("scale", [CellScale("imagenet", 4, 8, (4, 4, 4)), CellScale("imagenet", 4, 8, (2, 2, 2))])
def test_cadenes_mobile_skips_two_numbers_a_reduction(scale):
    mobile = replace(TINY, scale=scale)
    variables = slim_variables(mobile)
    theirs = port(variables, mobile, gaps=scale.stages[0])
    if scale.stages[0] == 4:
        cells = {int(match[1]) for match in (re.match(r"cell_(\d+)\.", key) for key in theirs) if match}
        assert cells == {0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15}
        assert {"reduction_cell_0", "reduction_cell_1"} <= {key.split(".")[0] for key in theirs}
        equal(convert.from_cadene(theirs, mobile), convert.from_tf_slim(variables, mobile))
        with pytest.raises(ConversionError, match="cell_12"):
            convert.from_timm(theirs, mobile)  # numbers without gaps
    else:
        equal(convert.from_cadene(port(variables, mobile), mobile), convert.from_tf_slim(variables, mobile))


def test_cadenes_large_has_a_background_class():
    variables = slim_variables(TINY, background=True)
    theirs = port(variables, TINY)
    assert theirs["last_linear.weight"].shape[0] == 1001
    state = convert.from_cadene(theirs, TINY)
    assert torch.equal(state["classifier.weight"], theirs["last_linear.weight"][1:])
    assert torch.equal(state["classifier.bias"], theirs["last_linear.bias"][1:])
    equal(state, convert.from_tf_slim(variables, TINY))


def test_half_precision_ports_come_back_as_float32(tiny):
    theirs = {key: value.half() for key, value in port(tiny, TINY).items()}
    state = convert.from_timm(theirs, TINY)
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert torch.equal(state["classifier.weight"], theirs["last_linear.weight"].float())


def test_ports_that_do_not_fit(tiny):
    theirs = port(tiny, TINY)
    del theirs["conv0.conv.weight"]
    for read in (convert.from_timm, convert.from_cadene):
        with pytest.raises(ConversionError, match=r"1 missing \(conv0.conv.weight\); 1 left over \(fc.weight\)"):
            read(theirs | {"fc.weight": torch.zeros(1)}, TINY)
        with pytest.raises(ConversionError, match="missing"):
            read({}, TINY)
        with pytest.raises(ConversionError, match=r"conv0.conv.weight \(4,\), expected \(4, 3, 3, 3\)"):
            read(theirs | {"conv0.conv.weight": torch.zeros(4)}, TINY)


def test_sources_cover_every_tensor_once():
    for config, numbered in ((TINY, False), (TINY_AUX, False), (TINY_PNASNET, True), (TINY_CIFAR, False)):
        sources, state = slim_sources(config, numbered), build(config, empty=True).state_dict()
        assert sorted(source.key for source in sources) == sorted(state)
        assert len({source.name for source in sources}) == len(sources)
