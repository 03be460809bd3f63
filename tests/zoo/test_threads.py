"""Several threads with one network: predictions are made in eval mode, and a training finds its modes again."""

import copy
import gc
import pickle
import weakref
from threading import Barrier, Event, Thread

import numpy as np
import pytest
import torch
from changed_networks import small_network
from torch import nn

from nasnet_zoo.networks import network as networks
from nasnet_zoo.networks.network import eval_mode

PATIENCE = 60  # seconds, for what happens at once on an idle machine


def modes_of(network):
    return [module.training for module in network.modules()]


def training_network():
    network = small_network().train()
    network.stem.eval()  # a frozen part
    return network


def run(*functions):
    """Runs functions in threads of their own and waits; raises what they raise."""
    raised = []

    def caught(function):
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [Thread(target=caught, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not raised and not any(thread.is_alive() for thread in threads), raised


def test_modes_come_back_when_the_last_one_leaves():
    network = training_network()
    before = modes_of(network)
    first_inside, second_inside, first_left = Event(), Event(), Event()

    def first():
        with eval_mode(network):
            first_inside.set()
            assert second_inside.wait(PATIENCE)
        first_left.set()

    def second():
        assert first_inside.wait(PATIENCE)
        with eval_mode(network):
            second_inside.set()
            assert first_left.wait(PATIENCE)
            assert not any(modes_of(network))  # the first has left, and this one still computes

    run(first, second)
    assert modes_of(network) == before


def test_predictions_of_many_threads_are_made_in_eval_mode():
    network = training_network()
    before, statistics = modes_of(network), {k: v.clone() for k, v in network.state_dict().items()}
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected, seen = network.predict(picture), []
    hook = network.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(any(modes_of(network))))
    together = Barrier(4)

    def many():
        together.wait(PATIENCE)
        for _ in range(4):
            assert network.predict(picture) == expected

    run(*[many] * 4)
    hook.remove()
    assert len(seen) == 16 and not any(seen)
    assert modes_of(network) == before
    assert all(torch.equal(value, statistics[key]) for key, value in network.state_dict().items())


def test_train_takes_effect_when_the_predictions_have_ended():
    network = small_network().eval()
    inside, trained = Event(), Event()

    def predicting():
        with eval_mode(network):
            inside.set()
            assert trained.wait(PATIENCE)
            assert not any(modes_of(network))

    def training():
        assert inside.wait(PATIENCE)
        assert network.train() is network
        with eval_mode(network):  # a prediction that begins now does not bring back the mode before
            pass
        trained.set()

    run(predicting, training)
    assert all(modes_of(network))
    with eval_mode(network), eval_mode(network):
        network.eval()
    assert not any(modes_of(network))


@pytest.mark.parametrize("inner_first", [True, False])
def test_a_network_and_its_wrapper_in_use_together(inner_first):
    network = training_network()
    wrapper = nn.DataParallel(network)
    before = modes_of(network)
    first, second = (eval_mode(each) for each in ((network, wrapper) if inner_first else (wrapper, network)))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(modes_of(network))
    second.__exit__(None, None, None)
    assert modes_of(network) == before and wrapper.training


def test_networks_that_share_a_part_in_use_together():
    one, other = training_network(), training_network()
    other.classifier = one.classifier
    before = modes_of(one), modes_of(other)
    first, second = eval_mode(one), eval_mode(other)
    first.__enter__()
    second.__enter__()
    one.eval()
    first.__exit__(None, None, None)
    assert not any(modes_of(one)) and not any(modes_of(other))
    one.train()
    one.stem.eval()
    second.__exit__(None, None, None)
    assert (modes_of(one), modes_of(other)) == before


def test_one_that_fails_leaves_the_modes_to_the_others():
    network = training_network()
    before = modes_of(network)
    with eval_mode(network):
        with pytest.raises(RuntimeError), eval_mode(network):
            raise RuntimeError
        assert not any(modes_of(network))
    assert modes_of(network) == before


def test_a_network_in_use_can_be_copied_and_is_not_kept_alive():
    network = small_network()
    with eval_mode(network):
        copied, pickled = copy.deepcopy(network), pickle.loads(pickle.dumps(network))
    for other in (copied, pickled):
        assert all(modes_of(other.train()))
    assert not networks._in_eval
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None
