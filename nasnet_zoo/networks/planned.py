"""A network from any plan: each step's layers as a chain under the step's name, run in the plan's order."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..arch.config import NetworkConfig
from ..arch.plan import PICTURE, Step
from .auxiliary import AuxiliaryHead
from .layers import Chain, State, concatenated, drop_path
from .network import ImageNetwork


class PlannedNetwork(ImageNetwork):
    """The steps of a config's plan, a global average and a classifier.

    Input (batch, in_channels, height, width), normalised, of at least `minimum_size` pixels a side. `forward` returns
    logits (batch, num_classes); in training mode a network with an auxiliary head returns (logits, auxiliary logits).

    `drop_path_keep` is the probability that the last steps keep a path at the end of the training: ScheduledDropPath,
    linear in depth and in `progress` (NASNet paper, section A.7). With `checkpointing` a training computes the inside
    of each group of steps, a cell say, a second time in the backward pass instead of keeping it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.plan = plan = config.plan
        for step in plan.steps:
            self._place(step)
        # By name, because what hangs there may be replaced.
        self.chains = [tuple(step.name.split(".")) if step.layers else () for step in plan.steps]
        self.done_with = [  # the maps that nothing reads after each step, its own among them if nothing does at all
            tuple(read for read in {*step.inputs, index} if plan.last_use.get(read, index) == index)
            for index, step in enumerate(plan.steps)
        ]
        self.dropout = nn.Dropout(0.0)
        self.num_features = plan.num_features
        self.classifier = nn.Linear(plan.num_features, config.num_classes)
        self.aux = None
        if plan.auxiliary is not None:
            channels = plan.width(plan.auxiliary.inputs)
            self.aux = AuxiliaryHead(channels, plan.auxiliary.size, config.num_classes, plan.bn_eps)
        self.feature_strides = tuple(plan.strides[group[0]] for group in plan.features)
        self.feature_channels = tuple(plan.width(group) for group in plan.features)
        self.minimum_size = plan.minimum_size
        self.drop_path_keep = 1.0
        self.checkpointing = False

    def _place(self, step: Step) -> None:
        """Makes the chain of a step that has layers, under the step's name."""
        if not step.layers:
            return
        *above, last = step.name.split(".")
        parent: nn.Module = self
        for part in above:
            if part not in parent._modules:
                parent.add_module(part, nn.ModuleDict())
            parent = parent._modules[part]
        parent.add_module(last, Chain(step.layers, self.plan.bn_eps))

    def _chain(self, index: int) -> nn.Module:
        module: nn.Module = self
        for part in self.chains[index]:
            module = getattr(module, part)
        return module

    def regularize(self, *, drop_path_keep: float, dropout: float) -> None:
        self.drop_path_keep, self.dropout.p = drop_path_keep, dropout

    def depths(self) -> dict[str, int]:
        steps = {".".join(chain): ".".join(chain[:2]) for chain in self.chains if chain}
        cells: dict[str, str] = {}  # of each parameter; those of the classifier and the auxiliary head have none
        for name, _ in self.named_parameters():
            parts = name.split(".")
            prefixes = (".".join(parts[:length]) for length in range(1, len(parts)))
            cells[name] = next((steps[prefix] for prefix in prefixes if prefix in steps), "")
        present = {*cells.values()}
        order = [cell for cell in dict.fromkeys(steps.values()) if cell in present]
        places = {cell: place for place, cell in enumerate([*order, ""])}
        return {name: places[cell] for name, cell in cells.items()}

    def keep_probability(self, share: float) -> Tensor:
        """The probability that a step keeps its path, from its share of drop path and the training's progress, in
        float32: in a network of half precision it would go in steps."""
        return 1 - self.progress.float().clamp(max=1) * (share * (1 - self.drop_path_keep))

    def maps(self, x: Tensor) -> Iterator[tuple[int, State]]:
        """Every step and its map, in order. A map is let go after the last step that reads it, unless whoever iterates
        holds it; `cost.peak_values` counts on that."""
        states, shares = {PICTURE: State(x)}, {}
        dropping = self.training and self.drop_path_keep < 1
        for index, step in enumerate(self.plan.steps):
            if dropping and step.drop_path and step.drop_path not in shares:
                shares[step.drop_path] = self.keep_probability(step.drop_path)
            states[index] = self._step(index, states, shares.get(step.drop_path))
            yield index, states[index]
            for read in self.done_with[index]:
                del states[read]

    def _step(self, index: int, states: dict[int, State], keep: Tensor | None) -> State:
        step = self.plan.steps[index]
        state = states[step.inputs[0]]
        if step.join == "concat":
            state = _joined(states, step.inputs)
        elif step.join == "add":
            total = state.raw
            for read in step.inputs[1:]:
                total = total + states[read].raw
            state = State(total)
        if step.layers:
            state = State(self._chain(index)(state))
        return state if keep is None else State(drop_path(state.raw, keep))

    def _checkpointed(self, x: Tensor, keep: Collection[int]) -> Iterator[tuple[int, State]]:
        """`maps`, of those steps only that are in `keep` or read outside their group: the others are computed a second
        time."""
        plan, states = self.plan, {PICTURE: State(x)}
        groups = groupby(range(len(plan.steps)), lambda index: plan.steps[index].name.split(".")[:2])
        for group in [tuple(members) for _, members in groups]:
            outside = sorted({read for index in group for read in plan.steps[index].inputs} - {*group})
            handed = [index for index in group if index in keep or plan.last_use.get(index, -1) > group[-1]]

            def run(*tensors: Tensor, group=group, outside=outside, handed=handed) -> list[Tensor]:
                inside = dict(zip(outside, map(State, tensors)))
                for index in group:
                    share = plan.steps[index].drop_path
                    dropping = self.drop_path_keep < 1 and share
                    inside[index] = self._step(index, inside, self.keep_probability(share) if dropping else None)
                return [inside[index].raw for index in handed]

            chains = [self._chain(index) for index in group if plan.steps[index].layers]
            tensors = [states[read].raw for read in outside]
            held = partial(_contexts, chains)
            for index, tensor in zip(handed, checkpoint(run, *tensors, use_reentrant=False, context_fn=held)):
                states[index] = State(tensor)
                yield index, states[index]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output, auxiliary = self.plan.output, self.plan.auxiliary
        heard = auxiliary.inputs if auxiliary is not None and self.aux is not None and self.training else ()
        found = self._found(x, (output, *heard))
        logits = self.forward_head(found[output].raw)
        return (logits, self.aux(_joined(found, heard))) if heard else logits

    def _found(self, x: Tensor, wanted: Collection[int]) -> dict[int, State]:
        """The maps of the wanted steps, as `checkpointing` asks for."""
        again, x = self.checkpointing and self.training and torch.is_grad_enabled(), self.checked(x)
        return _kept(self._checkpointed(x, wanted) if again else self.maps(x), wanted)

    def forward_features(self, x: Tensor) -> Tensor:
        return self._found(x, (self.plan.output,))[self.plan.output].raw

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.dropout(x.mean((2, 3)))
        return x if pre_logits else self.classifier(x)

    def features(self, x: Tensor, out_indices: Sequence[int] | None = None) -> list[Tensor]:
        groups = [self.plan.features[index] for index in self.chosen(out_indices)]
        found = _kept(self.maps(self.checked(x)), {read for group in groups for read in group})
        return [_joined(found, group).raw for group in groups]


def _kept(maps: Iterator[tuple[int, State]], wanted: Collection[int]) -> dict[int, State]:
    """The wanted ones of all maps; no other is held while the next is computed, and none after the last is computed."""
    found, last = {}, max(wanted, default=PICTURE)
    for index, state in maps:
        if index in wanted:
            found[index] = state
        del state
        if index == last:
            break
    return found


def _joined(states: dict[int, State], group: Sequence[int]) -> State:
    """The concatenation of some steps' maps."""
    return states[group[0]] if len(group) == 1 else State(concatenated([states[read].raw for read in group]))


def _contexts(chains: list[nn.Module]) -> tuple[Any, Any]:
    """For the first pass over a group and for the second, in which running statistics must not move again."""
    return nullcontext(), _held(chains)


@contextmanager
def _held(chains: list[nn.Module]) -> Iterator[None]:
    """The chains' buffers, of whatever class of norm, are afterwards what they were before."""
    before = [(buffer, buffer.clone()) for chain in chains for buffer in chain.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
