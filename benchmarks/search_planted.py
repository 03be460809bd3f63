"""Searchers on planted rewards: how fast they learn, with nothing in flight and with hundreds of children.

    python benchmarks/search_planted.py [--parts small large flight failures] [--only NAME ...]
    python benchmarks/search_planted.py --choose nasnet --set learning_rate=0.003 --in-flight 450 --children 2000

A reward is planted in the space nasnet: "op", how many ops are one hidden op; "additive", a sum of a worth for each
decision; "graph", the worth of ops, shared by all blocks of a cell, of pairs of ops in a block, of depth, and a loss
for blocks that read a state twice. Spread and noise are those of real children (search_real.py). Figures are in
deviations of random architectures from their mean: the mean of the last 100 children. The parts, each of which
replaces its figures in the results, take an hour on one core:

    small       320 children of three blocks, nothing in flight
    large       2,000 children of five blocks, nothing in flight
    flight      the same with 20, 200 and 450 in flight; a child takes 60 to 100 s, or always 80 ("450 in order")
    failures    `small`, where one child in twenty fails, whatever it is worth

The seeds that are reported begin at 0. --choose tries settings on seeds from 1000 on, so that nothing is tuned on what
is reported.
"""

import argparse
import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import RESULTS, write

from nasnet_zoo.search import EvolutionSettings
from nasnet_zoo.search.config import SearchConfig
from nasnet_zoo.search.presets import parsed, preset
from nasnet_zoo.search.searchers.base import Observation, Proposal
from nasnet_zoo.search.searchers.table import make_searcher
from nasnet_zoo.search.spaces.base import Tokens
from nasnet_zoo.search.spaces.cells import CellSpace
from nasnet_zoo.search.worth import FLOOR_OF

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


def search(
    config: SearchConfig, worth: Worth, in_flight: int = 0, in_order: bool = False, failing: float = 0.0
) -> np.ndarray:
    """(children, 2): worth and reward of the children in the order in which they finish. `in_flight` children run at a
    time, 0 standing for a searcher that always sees a whole batch before it proposes the next; `in_order` they all take
    the same time. A share of the children is `failing`, and gets the reward that the config's failures have."""
    space, rng = config.space.space(), random.Random(config.seed)
    searcher = make_searcher(config, space)
    running: list[tuple[float, int, Proposal]] = []
    clock, begun = 0.0, 0
    done: list[tuple[float, float]] = []
    seen: list[Observation] = []
    recent: deque[float] = deque(maxlen=FLOOR_OF)
    while len(done) < config.children:
        if not running or in_flight:
            room = (in_flight or searcher.batch) - len(running)
            for proposal in searcher.propose(min(room, config.children - begun)):
                seconds = (SHORTEST + LONGEST) / 2 if in_order else rng.uniform(SHORTEST, LONGEST)
                heapq.heappush(running, (clock + (seconds if in_flight else 0.0), begun, proposal))
                begun += 1
        clock, _, proposal = heapq.heappop(running)
        value = worth(proposal.tokens)
        reward = MEAN + SPREAD * value + rng.gauss(0, NOISE)
        done.append((value, reward))
        if rng.random() < failing:
            floor = config.failures.floor
            reward = min(recent, default=MEAN) if floor == "worst" else floor
        else:
            recent.append(reward)
        seen.append(Observation(proposal, reward))
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


FIRST = {"baseline": "batch-average", "ratio": "sequence", "epochs": 5}  # the rule of the first version


def variants(name: str) -> dict[str, SearchConfig]:
    """The searches that are compared at the scale of a preset."""
    base, paper = preset(name), preset("nasnet-paper").controller
    quick = name == "quick"
    first = replace(paper, learning_rate=0.01 if quick else paper.learning_rate, normalise=quick, **FIRST)
    reinforce = replace(base.controller, learning_rate=0.02 if quick else 0.01)
    return {
        "random": replace(base, searcher="random"),
        "evolution 100/25": replace(base, searcher="evolution", evolution=EvolutionSettings(100, 25)),
        "evolution 20/10": replace(base, searcher="evolution", evolution=EvolutionSettings(20, 10)),
        "PPO, first version": replace(base, controller=first),
        "PPO, preset nasnet-paper": replace(base, controller=paper),
        "REINFORCE, batch mean": replace(base, searcher="reinforce", controller=reinforce),
        f"PPO, preset {name}": base,
    }


def small(name: str, config: SearchConfig) -> dict[str, Any]:
    return measured(config, list(REWARDS), range(16))


def large(name: str, config: SearchConfig) -> dict[str, Any]:
    return measured(replace(config, children=2000), ["additive", "graph"], range(6), at=(1000, 2000))


def flight(name: str, config: SearchConfig) -> dict[str, Any]:
    if name in ("random", "evolution 20/10"):
        return {}
    found: dict[str, Any] = {}
    hows: dict[str, dict[str, Any]] = {str(count): {"in_flight": count} for count in (20, 200, 450)}
    for said, how in (hows | {"450 in order": {"in_flight": 450, "in_order": True}}).items():
        rows = measured(replace(config, children=2000), ["additive", "graph"], range(6), at=(1000, 2000), **how)
        found |= {f"{said}, {kind}": row for kind, row in rows.items()}
    return found


def failures(name: str, config: SearchConfig) -> dict[str, Any]:
    if not name.startswith("PPO, preset quick"):
        return {}
    found = {}
    for floor in ("worst", 0.0):
        settings = replace(config, failures=replace(config.failures, floor=floor))
        rows = measured(settings, ["additive", "graph"], range(16), failing=0.05)
        found |= {f"floor {floor}, {kind}": row for kind, row in rows.items()}
    return found


PARTS = {"small": (small, "quick"), "large": (large, "nasnet"), "flight": (flight, "nasnet")}
PARTS["failures"] = (failures, "quick")


def show(name: str, rows: dict[str, Any]) -> None:
    said = [f"{kind}: {row['last']:.2f} +- {row['error']:.2f}, best {row['best']:.2f}" for kind, row in rows.items()]
    print("\n    ".join([name, *said]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", help="the searches that are measured anew, by the beginning of their name")
    parser.add_argument("--choose", metavar="PRESET")
    parser.add_argument("--set", nargs="+", default=[], help="for --choose: settings of the controller")
    parser.add_argument("--searcher", default="ppo", help="for --choose")
    parser.add_argument("--children", type=int, help="for --choose")
    parser.add_argument("--in-flight", type=int, default=0, help="for --choose")
    parser.add_argument("--seeds", type=int, default=6, help="for --choose: how many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose:
        base = preset(arguments.choose)
        settings = {key: parsed(value) for key, _, value in (text.partition("=") for text in arguments.set)}
        config = replace(
            base,
            searcher=arguments.searcher,
            controller=replace(base.controller, **settings),
            children=arguments.children or base.children,
        )
        seeds = range(CHOOSE, CHOOSE + arguments.seeds)
        show(str(settings), measured(config, list(REWARDS), seeds, in_flight=arguments.in_flight))
        return
    path = RESULTS / "search_planted.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in arguments.parts:
        measure, name = PARTS[part]
        for said, config in variants(name).items():
            if arguments.only and not said.startswith(tuple(arguments.only)):
                continue
            if rows := measure(said, config):
                show(f"{part}: {said}", rows)
                record.setdefault(part, {})[said] = rows
                write("search_planted", {key: value for key, value in record.items() if key != "machine"})


if __name__ == "__main__":
    main()
