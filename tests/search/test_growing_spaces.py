"""Searchers on spaces whose decisions change: with those before them, and with the stage that the search is in."""

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from growing_space import GrowingChild, GrowingSpace, MixedSpace, every_sequence, worth
from scipy.stats import mannwhitneyu

from nasnet_zoo.errors import ConfigError
from nasnet_zoo.search import SPACES, ControllerSettings, EvolutionSettings, SearchConfig, SpaceSettings, get_space, run
from nasnet_zoo.search.journal import pack_state, unpack_state
from nasnet_zoo.search.report.report import write_report
from nasnet_zoo.search.searchers.base import Observation, Proposal
from nasnet_zoo.search.searchers.controller import Controller
from nasnet_zoo.search.searchers.evolution import Evolution
from nasnet_zoo.search.searchers.policy import FixedPolicy, Policy
from nasnet_zoo.search.searchers.table import SEARCHERS, make_searcher
from nasnet_zoo.search.spaces.base import Choice, Subset
from nasnet_zoo.search.spaces.table import SpaceEntry

ANY_SEARCHER = pytest.mark.parametrize("name", SEARCHERS)
GROWING = GrowingSpace(each=40)  # two layers, three from the 41st proposal on, four from the 81st on
SMALL = GrowingSpace(depth=2, stages=2)  # 32 sequences at first, then 512
CONFIG = SearchConfig(
    "none",
    controller=ControllerSettings(hidden=16, learning_rate=0.02, batch=10, normalise=True),
    evolution=EvolutionSettings(20, 5),
)


def make(name: str, seed: int = 0, space=GROWING):
    return make_searcher(replace(CONFIG, searcher=name, seed=seed), space)


def observed(space, proposals: list[Proposal]) -> list[Observation]:
    if isinstance(space, GrowingSpace):
        return [Observation(proposal, worth(space.decode(proposal.tokens))) for proposal in proposals]
    return [Observation(proposal, sum(proposal.tokens) / 20) for proposal in proposals]


def advance(searcher, evaluations: int) -> list[Proposal]:
    """So many evaluations, in batches; all that was proposed."""
    proposals = []
    for _ in range(evaluations // searcher.batch):
        batch = searcher.propose(searcher.batch)
        searcher.observe(observed(searcher.space, batch))
        proposals += batch
    return proposals


@ANY_SEARCHER
def test_proposals_are_sequences_of_the_stage_that_the_search_is_in(name):
    depths = []
    for number, proposal in enumerate(advance(make(name), 120)):
        GROWING.along(proposal.tokens, GROWING.stage(number))
        depths.append(len(GROWING.decode(proposal.tokens)))
    assert depths == [2] * 40 + [3] * 40 + [4] * 40


@ANY_SEARCHER
@pytest.mark.parametrize("space", [GROWING, MixedSpace()], ids=["growing", "mixed"])
@pytest.mark.parametrize("before", [0, 40, 60])  # of 40 on, what the searcher proposes next has one more layer
def test_a_fresh_searcher_goes_on_from_a_state_that_had_grown(name, space, before):
    searcher = make(name, space=space)
    advance(searcher, before)
    late = searcher.propose(20)  # in flight when the state is taken
    state = searcher.state_dict()
    fresh, further = make(name, seed=9, space=space), make(name, seed=8, space=space)
    advance(further, 120)  # has grown more than the state
    for heir in (fresh, further):
        heir.load_state_dict(unpack_state(pack_state(state)))
        assert pack_state(heir.state_dict()) == pack_state(state)
    for one in (searcher, fresh, further):
        for start in range(0, 20, one.batch):
            one.observe(observed(space, late[start : start + one.batch]))
    expected = advance(searcher, 60)
    assert advance(fresh, 60) == advance(further, 60) == expected
    assert pack_state(fresh.state_dict()) == pack_state(further.state_dict()) == pack_state(searcher.state_dict())


@ANY_SEARCHER
def test_an_interrupted_search_is_the_uninterrupted_one(tmp_path, monkeypatch, name):
    """The driver is killed before, at and after the proposals with which the space grows."""
    monkeypatch.setattr("nasnet_zoo.search.report.report.write_report", lambda *arguments: None)
    monkeypatch.setitem(SPACES, "growing", SpaceEntry("it grows", lambda name: GrowingSpace(name, each=15)))

    class Interrupted(GrowingChild):
        calls = 0

        def __call__(self, architecture, seed):
            self.calls += 1
            if self.calls == 7:
                raise KeyboardInterrupt
            return super().__call__(architecture, seed)

    def searched(folder: str, child=GrowingChild) -> list:
        config = replace(CONFIG, folder=str(tmp_path / folder), space=SpaceSettings("growing"), searcher=name)
        config = replace(config, controller=replace(config.controller, batch=6), children=50)
        seen = []
        run(config, child=child(), on_change=seen.append)
        state = pack_state(seen[-1].searcher.state_dict())
        return [state, *((r.tokens, r.hash, r.notes, r.status, r.reward) for r in seen[-1].records)]

    whole = searched("whole")
    for _ in range(8):
        with pytest.raises(KeyboardInterrupt):
            searched("cut", Interrupted)
    assert searched("cut") == whole
    depths = [len(GROWING.decode(tokens)) for tokens, *_ in whole[1:]]
    assert depths == [2] * 15 + [3] * 15 + [4] * 20


def test_a_report_tells_of_a_space_that_grows(tmp_path, monkeypatch):
    monkeypatch.setitem(SPACES, "growing", SpaceEntry("it grows", lambda name: GrowingSpace(name, each=20)))
    config = replace(CONFIG, folder=str(tmp_path), space=SpaceSettings("growing"), children=50)
    run(config, child=GrowingChild())
    text = " ".join((tmp_path / "report.html").read_text().split())
    assert "has 16,928 sequences. Each child" in text and "<svg" in text
    monkeypatch.setattr(GrowingSpace, "size", None)
    assert "has an unknown number of sequences. Each child" in " ".join(write_report(tmp_path).read_text().split())


# The controller


class Shared(GrowingSpace):
    """The ops of all layers are one thing to be decided, and so are their widths and inputs."""

    def next(self, prefix, stage=0):
        decision = super().next(prefix, stage)
        return decision and replace(decision, name=decision.name.partition(".")[2])


def scored(policy, sequences, stages):
    """The log-probability of each sequence and the entropy along it, summed over decisions."""
    return tuple(each.sum(0) for each in policy.scorer(sequences, stages)())


def controller(space=SMALL, ppo: bool = False, seed: int = 0, **settings) -> Controller:
    defaults = dict(hidden=5, learning_rate=0.05, batch=8, epochs=1, initial=0.8, entropy_weight=0.0)
    return Controller(space, ControllerSettings(**defaults | settings), seed, ppo)


def grown(space=SMALL, seed: int = 0) -> Controller:
    """A controller that has met every decision of the space."""
    searcher = controller(space, seed=seed)
    for stage in range(space.stages):
        searcher.policy.scorer(list(every_sequence(space, stage)), [stage] * space.size)
    return searcher


def in_double(searcher: Controller) -> dict[str, torch.Tensor]:
    return {name: value.detach().double().requires_grad_() for name, value in searcher.parameters.items()}


def reference(searcher: Controller, parameters: dict[str, torch.Tensor], tokens, stage: int):
    """log p of one sequence and the policy's entropy along it, by the textbook: one step, one element after another."""
    hidden = cell = torch.zeros_like(parameters["start"])
    weight_ih, weight_hh = parameters["lstm.weight_ih_l0"], parameters["lstm.weight_hh_l0"]
    bias = parameters["lstm.bias_ih_l0"] + parameters["lstm.bias_hh_l0"]
    inputs, log_p, entropy = parameters["start"], 0.0, 0.0
    for token, decision in zip(tokens, searcher.space.along(tokens, stage)):
        row = searcher.policy.rows[decision.name]
        i, f, g, o = (weight_ih @ inputs + weight_hh @ hidden + bias).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        logits = (hidden @ parameters["weight"][row] + parameters["bias"][row, 0])[: decision.choices]
        if isinstance(decision, Choice):
            p = logits.exp() / logits.exp().sum()
            log_p, entropy = log_p + p[token].log(), entropy - (p * p.log()).sum()
            inputs = parameters["embedding"][row, token]
        else:
            inputs = torch.zeros_like(inputs)
            for element, p in enumerate(1 / (1 + (-logits).exp())):
                inside = token >> element & 1
                log_p = log_p + (p if inside else 1 - p).log()
                entropy = entropy - p * p.log() - (1 - p) * (1 - p).log()
                inputs = inputs + inside * parameters["embedding"][row, element]
    return log_p, entropy


@pytest.mark.parametrize("space", [SMALL, MixedSpace()], ids=["growing", "mixed"])
def test_probabilities_sum_to_one_and_entropies_to_the_policys(space):
    searcher = grown(space)
    for stage in range(space.stages):
        sequences = list(every_sequence(space, stage))
        log_p, entropy = scored(searcher.policy, sequences, [stage] * len(sequences))
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert (log_p.exp() * entropy).sum().item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), rel=1e-4)


@pytest.mark.parametrize("space", [SMALL, MixedSpace()], ids=["growing", "mixed"])
def test_log_probabilities_and_entropies_are_those_of_the_formulas(space):
    searcher, rng = grown(space), random.Random(0)
    stages = [place % space.stages for place in range(12)]
    sequences = [space.sample(rng, stage) for stage in stages]
    log_p, entropy = scored(searcher.policy, sequences, stages)
    parameters = in_double(searcher)
    expected = [reference(searcher, parameters, *pair) for pair in zip(sequences, stages)]
    assert log_p.tolist() == pytest.approx([one.item() for one, _ in expected], abs=1e-4)
    assert entropy.tolist() == pytest.approx([one.item() for _, one in expected], abs=1e-4)


def test_decisions_of_one_name_share_their_parts():
    space = Shared(depth=3, stages=1)
    searcher = grown(space)
    assert set(searcher.policy.rows) == {"op", "width", "inputs"}
    sequences = [space.sample(random.Random(seed)) for seed in range(8)]
    log_p, _ = scored(searcher.policy, sequences, [0] * 8)
    expected = [reference(searcher, in_double(searcher), tokens, 0)[0].item() for tokens in sequences]
    assert log_p.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("space", [GrowingSpace(depth=2, stages=2, each=24), MixedSpace()], ids=["growing", "mixed"])
def test_the_log_probability_that_is_stored_is_that_of_the_tokens(space):
    searcher = controller(space)
    for _ in range(6):  # also when the policy has grown, and been trained
        proposals = searcher.propose(8)
        parameters = in_double(searcher)
        expected = [reference(searcher, parameters, p.tokens, p.stage)[0].item() for p in proposals]
        assert [sum(p.notes["log_probabilities"]) for p in proposals] == pytest.approx(expected, abs=1e-4)
        searcher.observe([Observation(proposal, place / 8) for place, proposal in enumerate(proposals)])


@pytest.mark.parametrize("space", [GrowingSpace(depth=2, stages=1), MixedSpace()], ids=["growing", "mixed"])
def test_samples_follow_the_policy(space):
    searcher, n = grown(space, seed=1), 4000
    counts = Counter(proposal.tokens for proposal in searcher.propose(n))
    sequences = list(every_sequence(space))
    p = scored(searcher.policy, sequences, [0] * len(sequences))[0].exp().tolist()
    assert max(p) > 2 * min(p)
    for tokens, one in zip(sequences, p):
        assert counts[tokens] == pytest.approx(n * one, abs=5 * (n * one) ** 0.5 + 2)


def test_the_gradient_is_that_of_the_expected_reward():
    """All sequences, each weighted with its probability, against finite differences of the sum over all of them."""
    searcher, stage = grown(), 1
    sequences = list(every_sequence(SMALL, stage))
    rewards = torch.tensor([worth(SMALL.decode(tokens)) for tokens in sequences], dtype=torch.float64)
    score = searcher.policy.scorer(sequences, [stage] * len(sequences))
    weighted = (score()[0].sum(0).exp() * rewards).tolist()

    searcher.baseline = 0.0
    searcher.settings = replace(searcher.settings, baseline="batch-average")  # the same for the whole batch
    notes = [{"log_probabilities": [0.0] * len(tokens), "stage": stage} for tokens in sequences]
    before = {name: value.detach().double() for name, value in searcher.parameters.items()}
    proposals = map(Proposal, sequences, notes)
    searcher.observe([Observation(p, r * len(sequences)) for p, r in zip(proposals, weighted)])
    gradients = {name: -value.grad for name, value in searcher.parameters.items()}

    searcher.policy.double()
    step, rng = 1e-4, random.Random(0)
    for name, parameter in searcher.parameters.items():
        slopes = []
        for _ in range(12):
            place, expected = tuple(map(rng.randrange, parameter.shape)), []
            for sign in (1, -1):
                for other, value in searcher.parameters.items():
                    value.data = before[other].clone()
                parameter.data[place] += sign * step
                with torch.no_grad():
                    expected.append((score()[0].sum(0).exp() * rewards).sum().item())
            slopes.append((expected[0] - expected[1]) / (2 * step))
            assert gradients[name][place].item() == pytest.approx(slopes[-1], rel=1e-2, abs=1e-6), (name, place)
        assert max(map(abs, slopes)) > 1e-5, name


@pytest.mark.parametrize("name", ["nasnet", "nasbench201"])
def test_both_policies_are_the_same_where_both_can_serve(name):
    space, rng = get_space(name), random.Random(0)
    fixed, general = (kind(space, 12, 0.5, torch.Generator().manual_seed(3)) for kind in (FixedPolicy, Policy))
    sequences = [space.sample(rng) for _ in range(6)]
    results = []
    for policy in (fixed, general):
        log_p, entropy = scored(policy, sequences, [0] * 6)
        (log_p.sum() + 0.3 * entropy.sum()).backward()
        results.append([log_p, entropy, *(parameter.grad for parameter in policy.parameters())])
    assert isinstance(controller(space).policy, FixedPolicy)
    for one, other in zip(*results):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_parts_are_made_when_a_decision_is_first_met_and_what_was_there_stays():
    searcher = controller(GrowingSpace(depth=1, stages=4, each=8), learning_rate=0.01)
    assert list(searcher.policy.rows) == [] and searcher.policy.weight.numel() == 0
    advance(searcher, 8)
    assert set(searcher.policy.rows) == {"0.op", "0.width"}
    widest = searcher.policy.weight.shape[2]
    assert widest == 3
    rows, old = dict(searcher.policy.rows), {n: p.detach().clone() for n, p in searcher.parameters.items()}
    moments = {n: searcher.optimizer.state[p]["exp_avg"].clone() for n, p in searcher.parameters.items()}
    assert moments["weight"].abs().max() > 0

    late = searcher.propose(8)  # of the next stage
    assert set(searcher.policy.rows) == {*rows, "1.op", "1.width", "1.inputs"}
    assert all(searcher.policy.rows[name] == row for name, row in rows.items())
    for name, parameter in searcher.parameters.items():
        assert torch.equal(parameter[tuple(map(slice, old[name].shape))], old[name])
        new = parameter[2:] if name in ("embedding", "weight", "bias") else None
        assert new is None or (new.abs().max() == 0) == (name == "bias")
        assert new is None or new.abs().max() <= 0.8
    searcher.optimizer.param_groups[0]["lr"] = 0.0
    searcher.observe([Observation(proposal, 0.5) for proposal in late])
    for name, parameter in searcher.parameters.items():
        moment = searcher.optimizer.state[parameter]["exp_avg"]
        assert moment.shape == parameter.shape
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        before = torch.zeros_like(parameter)
        before[tuple(map(slice, moments[name].shape))] = moments[name]
        assert torch.allclose(moment, 0.9 * before + 0.1 * gradient, atol=1e-7)

    late = searcher.propose(16)  # of the next two stages, the last of which has a subset of three
    assert {proposal.stage for proposal in late} == {2, 3} and "3.inputs" in searcher.policy.rows
    assert searcher.policy.weight.shape[2] == 3


def test_a_wider_decision_widens_all():
    searcher = controller(GrowingSpace(depth=5, stages=1))
    assert searcher.policy.weight.shape == (0, 5, 0)
    advance(searcher, 16)
    assert searcher.policy.weight.shape[1:] == (5, 4)  # the fifth layer's inputs
    assert searcher.policy.embedding.shape[1:] == (4, 5) and searcher.policy.bias.shape[1:] == (1, 4)


def test_the_entropy_of_a_policy_without_preferences():
    searcher = controller(initial=0.0)
    proposals = searcher.propose(8)
    statistics = searcher.observe([Observation(proposal, 0.5) for proposal in proposals])
    made = [decision for proposal in proposals for decision in SMALL.along(proposal.tokens, proposal.stage)]
    assert len({len(proposal.tokens) for proposal in proposals}) > 1
    expected = sum(math.log(decision.outcomes) for decision in made) / len(made)
    assert statistics["policy/entropy"] == pytest.approx(expected, rel=1e-5)


def test_a_subset_may_have_as_many_elements_as_its_token_has_bits():
    class Wide(MixedSpace):
        decisions = (Choice("op", 100), Subset("inputs", 62))

    searcher = controller(Wide(), initial=0.05)
    proposals = searcher.propose(64)
    assert all(Wide().check(proposal.tokens) == proposal.tokens for proposal in proposals)
    taken = [sum(proposal.tokens[1] >> element & 1 for proposal in proposals) for element in range(62)]
    assert all(10 <= count <= 54 for count in taken)
    parameters = in_double(searcher)
    expected = [reference(searcher, parameters, p.tokens, 0)[0].item() for p in proposals]
    assert [sum(p.notes["log_probabilities"]) for p in proposals] == pytest.approx(expected, abs=1e-3)
    searcher.observe([Observation(proposal, proposal.tokens[0] / 100) for proposal in proposals])


@ANY_SEARCHER
def test_spaces_that_never_end_or_have_no_decision_are_refused(monkeypatch, name):
    monkeypatch.setattr("nasnet_zoo.search.spaces.base.MAX_DECISIONS", 1000)

    class Endless(GrowingSpace):
        def next(self, prefix, stage=0):
            return Choice(f"{len(prefix)}.op", 2)

    with pytest.raises(ConfigError, match="growing: after 1,000 decisions 1000.op is still to be decided; `next`"):
        make(name, space=Endless()).propose(2)
    with pytest.raises(ConfigError, match="growing: there is nothing to decide at stage 0, and so nothing to search"):
        make(name, space=GrowingSpace(depth=0)).propose(2)


# Evolution


def mutations(space: GrowingSpace, parent: tuple[int, ...], n: int = 400, stage: int = 0) -> list[tuple[int, ...]]:
    """What comes of one parent of the first stage in a search that is at `stage`."""
    searcher = Evolution(replace(space, each=1), EvolutionSettings(1, 1), 0)
    searcher.observe([Observation(Proposal(parent), 0.5)])
    searcher.proposed = stage
    return [proposal.tokens for proposal in searcher.propose(n)]


def test_a_mutation_keeps_what_is_still_decided():
    space = GrowingSpace(depth=3, stages=1)
    parent = (2, 1, 0, 1, 2, 0, 2)  # a wide convolution, a skip that reads it, a narrow convolution that reads the skip
    layers, changes = space.decode(parent), Counter()
    for tokens in mutations(space, parent):
        mutant = space.decode(tokens)
        ((place, old, new),) = [(i, a, b) for i, (a, b) in enumerate(zip(layers, mutant)) if a != b]
        if old.op != new.op:
            changes[place, "op"] += 1
            assert old.inputs == new.inputs and (new.width is None) == (new.op != "conv")
        elif old.width != new.width:
            changes[place, "width"] += 1
            assert old.inputs == new.inputs
        else:
            changes[place, "inputs"] += 1
            assert len({*old.inputs} ^ {*new.inputs}) == 1
    expected = {(0, "op"), (0, "width"), (1, "op"), (1, "inputs"), (2, "op"), (2, "width"), (2, "inputs")}
    assert set(changes) == expected
    assert all(count == pytest.approx(400 / 7, abs=30) for count in changes.values())


def test_a_mutation_tells_decisions_of_one_name_apart():
    space, parent = Shared(depth=3, stages=1), (2, 1, 0, 1, 2, 0, 2)
    names = [decision.name for decision in space.along(parent)]
    alike = [t for t in mutations(space, parent) if [decision.name for decision in space.along(t)] == names]
    assert len(alike) > 100
    assert all(sum(a != b for a, b in zip(parent, tokens)) == 1 for tokens in alike)


def test_a_mutation_grows_with_the_space():
    parent = (0, 1, 1, 0, 3)
    space = GrowingSpace(depth=3, stages=2)
    layers = space.decode(parent)
    grown = [space.decode(tokens) for tokens in mutations(space, parent, stage=1)]
    assert {len(mutant) for mutant in grown} == {4}
    assert all(sum(a != b for a, b in zip(layers, mutant)) == 1 for mutant in grown)
    assert {mutant[3].op for mutant in grown} == {"skip", "pool", "conv"}


# Against chance


@pytest.mark.parametrize("name", ["ppo", "reinforce", "evolution"])
def test_searches_do_better_than_chance(name):
    space, last = GrowingSpace(depth=3, stages=3, each=150), {}
    for searcher in (name, "random"):
        proposals = advance(make(searcher, seed=1, space=space), 450)
        last[searcher] = np.array([o.reward for o in observed(space, proposals[-50:])])
    assert last[name].mean() > last["random"].mean() + 0.3
    assert mannwhitneyu(last[name], last["random"], alternative="greater").pvalue < 1e-3
