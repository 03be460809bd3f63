"""Every searcher: stays in the space, is reproducible, goes on from its state, learns; then each by its formulas."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from nasnet_zoo.search import SPACES, ControllerSettings, EvolutionSettings, SearchConfig, SpaceSettings, get_space
from nasnet_zoo.search.journal import pack_state, unpack_state
from nasnet_zoo.search.searchers.base import Observation, Proposal
from nasnet_zoo.search.searchers.controller import Controller
from nasnet_zoo.search.searchers.evolution import Evolution
from nasnet_zoo.search.searchers.random import RandomSearch
from nasnet_zoo.search.searchers.table import SEARCHERS, make_searcher
from nasnet_zoo.search.spaces.cells import CellSpace

ANY_SEARCHER = pytest.mark.parametrize("name", SEARCHERS)
SPACE = get_space("nds-enas", blocks=1)  # eight decisions, of 2, 2, 5 and 5 choices for each cell
QUICK = SearchConfig(
    "none",
    SpaceSettings("nds-enas", blocks=1),
    controller=ControllerSettings(hidden=16, learning_rate=0.02, batch=10),
    evolution=EvolutionSettings(20, 5),
)


def make(name: str, seed: int = 0, space=SPACE):
    return make_searcher(replace(QUICK, searcher=name, seed=seed), space)


def reward(proposal: Proposal) -> float:
    """The share of the four ops that are the second of the space."""
    return sum(token == 1 for token, d in zip(proposal.tokens, SPACE.decisions) if d.name.endswith("op")) / 4


def observed(proposals: list[Proposal]) -> list[Observation]:
    return [Observation(proposal, reward(proposal)) for proposal in proposals]


def advance(searcher, evaluations: int = 60) -> list[Proposal]:
    """So many evaluations, in batches; all that was proposed."""
    proposals = []
    for _ in range(evaluations // searcher.batch):
        batch = searcher.propose(searcher.batch)
        searcher.observe(observed(batch))
        proposals += batch
    return proposals


@ANY_SEARCHER
@pytest.mark.parametrize("space", SPACES)
def test_proposals_are_in_the_space(name, space):
    space = get_space(space)
    for proposal in make(name, space=space).propose(10):
        assert space.check(proposal.tokens) == proposal.tokens


@ANY_SEARCHER
def test_the_same_seed_gives_the_same_proposals(name):
    first = advance(make(name, seed=1))
    assert first == advance(make(name, seed=1))
    assert first != advance(make(name, seed=2))


@ANY_SEARCHER
@pytest.mark.parametrize("packed", [False, True])
def test_a_fresh_searcher_goes_on_from_a_state(name, packed):
    searcher = make(name)
    advance(searcher)
    late = searcher.propose(2 * searcher.batch)  # in flight when the state is taken
    state = searcher.state_dict()
    heir = make(name, seed=9)
    heir.load_state_dict(unpack_state(pack_state(state)) if packed else state)
    for each in (searcher, heir):
        each.observe(observed(late[searcher.batch :]))
        each.observe(observed(late[: searcher.batch]))
    assert advance(heir) == advance(searcher)
    assert pack_state(heir.state_dict()) == pack_state(searcher.state_dict())


@ANY_SEARCHER
def test_a_state_is_a_copy_and_replaces_all_that_was(name):
    searcher = make(name)
    state = searcher.state_dict()
    before = pack_state(state)
    advance(searcher)
    assert pack_state(state) == before != pack_state(searcher.state_dict())
    searcher.load_state_dict(state)
    assert pack_state(searcher.state_dict()) == before
    assert advance(searcher) == advance(make(name))


@ANY_SEARCHER
def test_it_learns_what_pays(name):
    searcher = make(name)
    rewards = [reward(proposal) for proposal in advance(searcher, 300)]
    last = sum(rewards[-60:]) / 60
    if name == "random":
        assert last == pytest.approx(0.2, abs=0.08)
    else:
        assert last > 0.6


# The controller


def controller(ppo: bool = True, space=SPACE, seed: int = 0, **settings) -> Controller:
    defaults = dict(hidden=7, learning_rate=0.05, batch=8, epochs=1, initial=0.5)
    return Controller(space, ControllerSettings(**defaults | settings), seed, ppo)


def reference(parameters: dict[str, torch.Tensor], tokens: tuple[int, ...], space) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each decision of a sequence (steps,) and the policy's entropy along it, by the textbook: one step, one
    gate after another."""
    hidden = cell = torch.zeros_like(parameters["start"])
    weight_ih, weight_hh = parameters["lstm.weight_ih_l0"], parameters["lstm.weight_hh_l0"]
    bias = parameters["lstm.bias_ih_l0"] + parameters["lstm.bias_hh_l0"]
    inputs = parameters["start"]
    log_p, entropy = [], 0.0
    for step, (token, decision) in enumerate(zip(tokens, space.decisions)):
        i, f, g, o = (weight_ih @ inputs + weight_hh @ hidden + bias).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        logits = (hidden @ parameters["weight"][step] + parameters["bias"][step, 0])[: decision.choices]
        p = logits.exp() / logits.exp().sum()
        log_p.append(p[token].log())
        entropy = entropy - (p * p.log()).sum()
        inputs = parameters["embedding"][step, token]
    return torch.stack(log_p), entropy


def in_double(searcher: Controller) -> dict[str, torch.Tensor]:
    return {name: value.detach().double().requires_grad_() for name, value in searcher.parameters.items()}


@pytest.mark.parametrize("ratio", ["decision", "sequence"])
def test_the_log_probabilities_that_are_stored_are_those_of_the_tokens(ratio):
    searcher = controller(space=get_space("nasnet"), ratio=ratio)
    for _ in range(3):  # also when the policy has been trained
        proposals = searcher.propose(8)
        tokens = torch.tensor([proposal.tokens for proposal in proposals])
        log_p = searcher.policy.log_probabilities(tokens).gather(2, tokens.T.unsqueeze(2)).squeeze(2).T
        expected = [reference(in_double(searcher), proposal.tokens, searcher.space)[0] for proposal in proposals]
        assert torch.allclose(log_p.double(), torch.stack(expected), atol=1e-4)
        for proposal, each in zip(proposals, log_p):
            if ratio == "decision":
                assert proposal.notes["log_probabilities"] == pytest.approx(each.tolist(), abs=2e-5)
            else:
                assert proposal.notes["log_probability"] == pytest.approx(each.sum().item(), abs=1e-4)
        searcher.observe([Observation(proposal, place / 8) for place, proposal in enumerate(proposals)])


def test_impossible_choices_have_probability_zero():
    space = get_space("nasnet")  # 2 to 13 choices
    log_p = controller(space=space).policy.log_probabilities(torch.tensor([space.sample(random.Random(0))]))
    for step, decision in enumerate(space.decisions):
        p = log_p[step, 0].exp()
        assert (p[: decision.choices] > 0).all() and (p[decision.choices :] == 0).all()
        assert p.sum().item() == pytest.approx(1, abs=1e-5)


def test_samples_follow_the_policy():
    searcher = controller()
    with torch.no_grad():
        searcher.policy.bias[2, 0] = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    n = 4000
    proposals = searcher.propose(n)
    expected = searcher.policy.log_probabilities(torch.tensor([p.tokens for p in proposals])).exp().mean(1)
    for step, decision in enumerate(SPACE.decisions):
        counts = Counter(proposal.tokens[step] for proposal in proposals)
        for choice in range(decision.choices):
            assert counts[choice] / n == pytest.approx(expected[step, choice].item(), abs=4 * 0.5 / n**0.5)


STALE_REWARDS = (0.9, 0.1, 0.4, 0.8, 0.2, 0.7, 0.3, 1.0)


def stale(searcher: Controller) -> list[Observation]:
    """Children that the policy proposed before an update."""
    proposals = searcher.propose(16)
    searcher.observe([Observation(proposal, place / 8) for place, proposal in enumerate(proposals[:8])])
    return [Observation(proposal, reward) for proposal, reward in zip(proposals[8:], STALE_REWARDS)]


def advantages_of(normalise: bool, subtracted: list[float]) -> torch.Tensor:
    rewards = torch.tensor(STALE_REWARDS, dtype=torch.float64)
    deviation = (rewards - rewards.mean()).square().sum().div(7).sqrt() if normalise else 1.0
    return (rewards - torch.tensor(subtracted, dtype=torch.float64)) / deviation


def assert_gradients(searcher: Controller, objective: torch.Tensor, parameters: dict[str, torch.Tensor]) -> None:
    (-objective).backward()
    for name, parameter in searcher.parameters.items():
        assert torch.allclose(parameter.grad.double(), parameters[name].grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("ppo", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("ratio", ["decision", "sequence"])
@pytest.mark.parametrize("baseline", ["batch-mean", "reward-average", "batch-average"])
def test_gradients_are_those_of_the_formulas(ppo, normalise, ratio, baseline):
    """Of the first epoch. Schulman et al. 2017, equation 7; Williams 1992. A decision's ratio begins at one, so that
    PPO's first step is REINFORCE's; a sequence's begins where the policy has gone since it was proposed."""
    searcher = controller(ppo, entropy_weight=0.3, clip=0.04, normalise=normalise, ratio=ratio, baseline=baseline)
    observations, average = stale(searcher), searcher.baseline
    parameters = in_double(searcher)
    statistics = searcher.observe(observations)

    subtracted = {"batch-mean": [0.55] * 8, "batch-average": [average] * 8, "reward-average": []}[baseline]
    for reward in STALE_REWARDS if baseline == "reward-average" else ():
        subtracted.append(average)
        average = 0.95 * average + 0.05 * reward
    objective, ratios, entropies, kl = 0.0, [], [], 0.0
    for observation, advantage in zip(observations, advantages_of(normalise, subtracted).tolist()):
        proposal = observation.proposal
        log_p, entropy = reference(parameters, proposal.tokens, SPACE)
        if ratio == "sequence":
            log_p, before = log_p.sum().unsqueeze(0), torch.tensor([proposal.notes["log_probability"]])
        else:
            before = torch.tensor(proposal.notes["log_probabilities"])
        moved = (log_p - before).exp()
        ratios += moved.tolist()
        kl += (moved - 1 - moved.log()).sum().item()
        entropies.append(entropy.item())
        clipped = moved.clamp(0.96, 1.04)
        sequence = torch.minimum(moved * advantage, clipped * advantage).sum()
        gain = sequence if ppo and ratio == "sequence" else log_p.sum() * advantage
        objective = objective + (gain + 0.3 * entropy) / 8
    assert min(ratios) < 0.96 and max(ratios) > 1.04  # they are stale
    assert_gradients(searcher, objective, parameters)
    assert statistics["policy/ratio"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
    assert statistics["policy/kl"] == pytest.approx(kl / 8 / len(SPACE.decisions), rel=0.01, abs=1e-6)
    assert statistics["policy/entropy"] == pytest.approx(sum(entropies) / 8 / len(SPACE.decisions), rel=1e-4)
    assert statistics["policy/reward"] == pytest.approx(0.55)
    far = sum(abs(each - 1) > 0.04 for each in ratios) / len(ratios)
    assert statistics["policy/clipped"] == (pytest.approx(far) if ratio == "sequence" else 0)


def test_the_clip_is_of_each_decision_around_the_policy_as_the_update_began():
    """Gradients of the second epoch; the proposals are stale, and what was before the update does not matter."""
    settings = dict(entropy_weight=0.0, clip=0.1, baseline="batch-mean")
    once, twice = (controller(epochs=epochs, **settings) for epochs in (1, 2))
    observations = stale(once)
    twice.load_state_dict(once.state_dict())
    begin = in_double(once)
    once.observe(observations)
    parameters = in_double(once)  # after the first epoch
    statistics = twice.observe(observations)
    objective, far = 0.0, 0
    for observation, advantage in zip(observations, advantages_of(False, [0.55] * 8).tolist()):
        anchor, _ = reference(begin, observation.proposal.tokens, SPACE)
        log_p, _ = reference(parameters, observation.proposal.tokens, SPACE)
        moved = (log_p - anchor.detach()).exp()
        far += ((moved - 1).abs() > 0.1).sum().item()
        gain = torch.minimum(moved * advantage, moved.clamp(0.9, 1.1) * advantage)
        objective = objective + gain.sum() / 8
    assert 0 < far < 8 * len(SPACE.decisions)  # some are clipped, and others of the same sequences are not
    assert_gradients(twice, objective, parameters)
    assert statistics["policy/clipped"] == pytest.approx(far / 8 / len(SPACE.decisions))


def test_ppo_takes_as_many_steps_as_it_has_epochs_and_reinforce_one():
    for ppo, epochs, steps in ((True, 4, 4), (False, 4, 1)):
        searcher = controller(ppo, epochs=epochs)
        searcher.observe(observed(searcher.propose(8)))
        assert int(searcher.state_dict()["adam.step.start"]) == steps


def test_what_ppo_clips_of_sequences_moves_the_policy_no_further():
    settings = dict(entropy_weight=0.0, batch=1, baseline="reward-average", ratio="sequence")
    searcher = controller(**settings)
    proposal = searcher.propose(1)[0]
    searcher.observe([Observation(proposal, 0.5)])  # the first one is its own baseline
    now = reference(in_double(searcher), proposal.tokens, SPACE)[0].sum().item()
    for drift, better, moves in ((0.5, 1.0, False), (0.5, 0.0, True), (-0.5, 1.0, True), (-0.5, 0.0, False)):
        fresh = controller(**settings)
        fresh.load_state_dict(searcher.state_dict())
        fresh.observe([Observation(Proposal(proposal.tokens, {"log_probability": now - drift}), better)])
        gradients = torch.cat([parameter.grad.flatten() for parameter in fresh.parameters.values()])
        assert (gradients.abs().max() > 1e-6) == moves, (drift, better)


def test_children_that_come_late_still_teach():
    """With hundreds in flight the policy has moved beyond PPO's clip when a result arrives."""
    searcher = controller(entropy_weight=0.0, batch=2, baseline="batch-mean")
    proposals = searcher.propose(2)
    late = [Proposal(p.tokens, {"log_probabilities": [-9.0] * len(p.tokens)}) for p in proposals]
    statistics = searcher.observe([Observation(late[0], 1.0), Observation(late[1], 0.0)])
    assert statistics["policy/ratio"] > 100 and searcher.policy.bias.grad.abs().max() > 1e-2


@pytest.mark.parametrize("space", ["nasnet", "nasbench201"])
def test_the_entropy_of_a_uniform_policy(space):
    space = get_space(space)
    searcher = controller(space=space, initial=0.0)
    statistics = searcher.observe([Observation(proposal, 0.5) for proposal in searcher.propose(4)])
    expected = sum(math.log(decision.choices) for decision in space.decisions) / len(space.decisions)
    assert statistics["policy/entropy"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ppo", [False, True])
@pytest.mark.parametrize("baseline", ["batch-mean", "reward-average", "batch-average"])
def test_the_baseline(ppo, baseline):
    searcher = controller(ppo, batch=2, baseline=baseline)
    seen = []
    for rewards in ((0.2, 0.4), (0.6, 0.8), (0.0, 0.2)):
        proposals = searcher.propose(2)
        statistics = searcher.observe([Observation(p, r) for p, r in zip(proposals, rewards)])
        seen.append(statistics["policy/baseline"])

    def moved(average: float, *rewards: float) -> float:
        for reward in rewards:
            average = 0.95 * average + 0.05 * reward
        return average

    first = moved(0.3, 0.2, 0.4)  # NASNet paper, appendix A.3: a moving average of rewards; it begins at their mean
    expected = {
        "batch-mean": [0.3, 0.7, 0.1],
        "reward-average": [first, second := moved(first, 0.6, 0.8), moved(second, 0.0, 0.2)],
        "batch-average": [0.3, second := moved(0.3, 0.7), moved(second, 0.1)],
    }
    assert seen == pytest.approx(expected[baseline])


def test_the_paper_has_a_hundred_units_and_one_softmax_per_decision():
    settings = SearchConfig("none").controller
    searcher = Controller(get_space("nasnet"), settings, 0)
    assert (settings.batch, settings.learning_rate, settings.entropy_weight) == (20, 3.5e-4, 1e-5)
    shapes = {name: tuple(parameter.shape) for name, parameter in searcher.parameters.items()}
    assert shapes["lstm.weight_ih_l0"] == shapes["lstm.weight_hh_l0"] == (400, 100)
    assert shapes["weight"] == (50, 100, 13)
    assert max(parameter.abs().max().item() for parameter in searcher.parameters.values()) <= 0.1


# Evolution


def evolution(population: int, sample: int, seed: int = 0, space=SPACE) -> Evolution:
    return Evolution(space, EvolutionSettings(population, sample), seed)


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return sum(x != y for x, y in zip(a, b))


def test_evolution_starts_like_random_search():
    searcher = evolution(30, 5, seed=3)
    assert searcher.propose(30) == RandomSearch(SPACE, 3).propose(30)


def test_a_mutation_waits_for_a_whole_population_of_results():
    """On a large fleet many children are proposed before the first result comes."""
    searcher, chance = evolution(30, 5, seed=3), RandomSearch(SPACE, 3)
    proposals = searcher.propose(100)
    for proposal in proposals[:29]:
        searcher.observe([Observation(proposal, reward(proposal))])
    assert [*proposals, *searcher.propose(50)] == chance.propose(150)
    searcher.observe([Observation(proposals[29], 0.0)])
    living = [proposal.tokens for proposal in proposals[:30]]
    assert all(min(distance(p.tokens, parent) for parent in living) == 1 for p in searcher.propose(20))


def test_the_oldest_dies():
    searcher = evolution(3, 3)
    proposals = searcher.propose(5)
    for place, proposal in enumerate(proposals):
        statistics = searcher.observe([Observation(proposal, 1 - place / 10)])  # the oldest are the best
    assert searcher.population == [Observation(proposals[place], 1 - place / 10) for place in (2, 3, 4)]
    assert statistics == {"population/mean": pytest.approx(0.7), "population/best": pytest.approx(0.8)}
    assert all(distance(p.tokens, proposals[2].tokens) == 1 for p in searcher.propose(20))


def test_the_best_of_the_sample_is_the_parent():
    searcher = evolution(3, 2)
    members = {(0, 0, 0, 0, 0, 0, 0, 0): 0.9, (1, 1, 1, 1, 1, 1, 1, 1): 0.1, (0, 1, 2, 3, 1, 0, 4, 2): 0.5}
    searcher.propose(3)
    searcher.observe([Observation(Proposal(tokens), value) for tokens, value in members.items()])
    parents = Counter()
    for proposal in searcher.propose(600):
        (parent,) = (tokens for tokens in members if distance(tokens, proposal.tokens) == 1)
        parents[members[parent]] += 1
    assert parents[0.1] == 0  # the worst is in no pair the best
    assert parents[0.9] == pytest.approx(400, abs=50)


def test_a_mutation_changes_one_decision_to_any_other_choice():
    space = CellSpace("test", ("identity", "sep_conv_3x3", "sep_conv_5x5"), 1, inputs=1)  # its states are no choice
    searcher = evolution(1, 1, space=space)
    parent = searcher.propose(1)[0]
    searcher.observe([Observation(parent, 0.5)])
    changes = Counter()
    for proposal in searcher.propose(2000):
        assert space.check(proposal.tokens) == proposal.tokens
        ((place, choice),) = ((i, b) for i, (a, b) in enumerate(zip(parent.tokens, proposal.tokens)) if a != b)
        changes[place, choice] += 1
    open_places = [place for place, decision in enumerate(space.decisions) if decision.choices > 1]
    assert open_places == [2, 3, 6, 7]
    others = {(place, choice) for place in open_places for choice in range(3) if choice != parent.tokens[place]}
    assert set(changes) == others
    assert all(count == pytest.approx(250, abs=75) for count in changes.values())


def test_a_space_without_a_choice_has_nothing_to_mutate():
    searcher = evolution(1, 1, space=CellSpace("test", ("identity",), 1, inputs=1))
    searcher.observe([Observation(searcher.propose(1)[0], 0.5)])
    assert searcher.propose(2) == [Proposal((0,) * 8)] * 2


def test_a_batch_of_failures_alone_does_not_drown_what_comes_after():
    settings = ControllerSettings(hidden=16, learning_rate=0.02, batch=10, normalise=True)
    searcher = make_searcher(replace(QUICK, searcher="ppo", controller=settings), SPACE)
    searcher.observe(observed(searcher.propose(10)))
    before = [p.detach().clone() for p in searcher.policy.parameters()]
    searcher.observe([Observation(proposal, 0.0) for proposal in searcher.propose(10)])
    moments = [state["exp_avg_sq"].max().item() for state in searcher.optimizer.state.values()]
    assert max(moments) < 10  # 1e10 where the advantages are divided by a deviation of zero
    assert any(not torch.equal(p, old) for p, old in zip(searcher.policy.parameters(), before))
