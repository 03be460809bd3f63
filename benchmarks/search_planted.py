"""Searchers on planted rewards: how fast they learn, with nothing in flight and with hundreds of children.

    python benchmarks/search_planted.py [--parts small large flight failures] [--seeds 12]
    python benchmarks/search_planted.py --choose small --controller learning_rate=0.003 [--searcher ppo] ...

A reward is planted in the space nasnet: "op", the share of ops that are one hidden op; "additive", a sum of a worth
for each decision; "graph", the worth of ops, shared by all blocks of a cell, of pairs of ops in a block, of depth, and
a loss for blocks that read a state twice. Noise and spread are those of real children (search_real.py). Figures are in
deviations of random architectures: the mean of the last 100 children.

The seeds that are reported begin at 0. --choose tries settings on seeds from 1000 on, so that nothing is tuned on what
is reported.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.searchers.base import Observation, Proposal
from nasnet_zoo.search.searchers.table import make_searcher
from nasnet_zoo.search.spaces.base import Tokens
from nasnet_zoo.search.spaces.cells import CellSpace

LAST = 100
MEAN, SPREAD, NOISE = 0.216, 0.033, 0.011  # of the accuracies of real children, as search_real.py measured them
SHORTEST, LONGEST = 60.0, 100.0  # seconds of a child
CALIBRATION = 4000  # random architectures, of whose worth the mean and the deviation are taken
CHOOSE = 1000  # the first seed that settings may be chosen on
Worth = Callable[[Tokens], float]


def op(space: CellSpace, rng: random.Random) -> Worth:
    """How many ops are one hidden op."""
    hidden = rng.randrange(len(space.ops))
    places = [place for place, decision in enumerate(space.decisions) if decision.name.endswith(".op")]
    return lambda tokens: sum(tokens[place] == hidden for place in places)


def additive(space: CellSpace, rng: random.Random) -> Worth:
    """A worth of every choice of every decision, that of an input smaller."""
    worth = [
        [rng.gauss(0, 0.3 if "state" in decision.name else 1) for _ in range(decision.choices)]
        for decision in space.decisions
    ]
    return lambda tokens: sum(each[token] for each, token in zip(worth, tokens))


def graph(space: CellSpace, rng: random.Random) -> Worth:
    """Ops' worth shared by the blocks of a cell, pairs of ops, depth, and a loss for what is read twice."""
    ops = range(len(space.ops))
    cells = [
        {
            "op": [rng.gauss(0, 1) for _ in ops],
            "pair": [[rng.gauss(0, 0.5) for _ in ops] for _ in ops],
            "combine": [rng.gauss(0, 0.5) for _ in space.combines],
            "depth": rng.gauss(0, 1),
        }
        for _ in range(2)
    ]
    each = 5 if len(space.combines) > 1 else 4

    def worth(tokens: Tokens) -> float:
        total = 0.0
        for cell, start in zip(cells, (0, len(tokens) // 2)):
            depths = [0] * space.inputs
            for place in range(start, start + len(tokens) // 2, each):
                left, right, first, second, *combine = tokens[place : place + each]
                total += cell["op"][first] + cell["op"][second]
                total += cell["pair"][min(first, second)][max(first, second)]
                total += cell["combine"][combine[0]] if combine else 0
                total -= left == right
                depths.append(1 + max(depths[left], depths[right]))
            total += cell["depth"] * max(depths)
        return total

    return worth


REWARDS = {"op": op, "additive": additive, "graph": graph}


def planted(kind: str, space: CellSpace, seed: int) -> Worth:
    """A reward of that kind, in deviations of random architectures from their mean."""
    rng = random.Random(f"{kind}/{seed}")
    raw = REWARDS[kind](space, rng)
    sample = [raw(space.sample(rng)) for _ in range(CALIBRATION)]
    mean, deviation = float(np.mean(sample)), float(np.std(sample))
    return lambda tokens: (raw(tokens) - mean) / deviation


def search(config: SearchConfig, worth: Worth, in_flight: int = 0, failing: float = 0.0) -> np.ndarray:
    """(children, 2): worth and reward of the children in the order in which they finish. `in_flight` children run at a
    time, 0 standing for a searcher that always sees a whole batch before it proposes the next, and a share of the
    children fails, whatever they are worth."""
    space, rng = config.space.space(), random.Random(config.seed)
    searcher = make_searcher(config, space)
    running: list[tuple[float, int, Proposal]] = []
    clock, begun = 0.0, 0
    done: list[tuple[float, float]] = []
    seen: list[Observation] = []
    while len(done) < config.children:
        if not running or in_flight:
            room = (in_flight or searcher.batch) - len(running)
            for proposal in searcher.propose(min(room, config.children - begun)):
                end = clock + (rng.uniform(SHORTEST, LONGEST) if in_flight else 0.0)
                heapq.heappush(running, (end, begun, proposal))
                begun += 1
        clock, _, proposal = heapq.heappop(running)
        value = worth(proposal.tokens)
        reward = MEAN + SPREAD * value + rng.gauss(0, NOISE)
        done.append((value, reward))
        failed = rng.random() < failing
        seen.append(Observation(proposal, 0.0 if failed else reward))
        if len(seen) == searcher.batch:
            searcher.observe(seen)
            seen = []
    return np.array(done)


def measured(
    config: SearchConfig, kinds: Sequence[str], seeds: range, at: Sequence[int] = (), **how: Any
) -> dict[str, dict[str, float]]:
    """By kind of reward and number of children: the mean worth of the last 100, its standard error over seeds, and the
    worth of the child with the best reward."""
    space, found = config.space.space(), {}
    for kind in kinds:
        runs = [search(replace(config, seed=seed), planted(kind, space, seed), **how) for seed in seeds]
        for count in at or (config.children,):
            last = np.array([run[max(count - LAST, 0) : count, 0].mean() for run in runs])
            best = np.mean([run[run[:count, 1].argmax(), 0] for run in runs])
            error = float(last.std(ddof=1) / len(last) ** 0.5) if len(last) > 1 else 0.0
            found[f"{kind} {count}"] = {"last": float(last.mean()), "error": error, "best": float(best)}
    return found
