"""Networks of kind "cell": one builder for every genotype, stem, width and depth (NASNet paper, section 3)."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..arch.cells import CellPlan, make_plan
from ..arch.config import NetworkConfig
from ..arch.ops import Conv, Norm, ReLU
from ..errors import ConfigError
from .layers import BatchNorm, Chain, State
from .network import Network


def drop_path(x: Tensor, keep: Tensor) -> Tensor:
    """Drops the whole of x for each example with probability 1 - keep, and scales what stays (Larsson et al.)."""
    mask = torch.floor(keep + torch.rand(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device))
    return x / keep.to(x.dtype) * mask


class Block(nn.Module):
    """Two operations on hidden states, and their combination into a new one."""

    def __init__(self, plan, eps: float) -> None:
        super().__init__()
        self.plan = plan
        self.left, self.right = (Chain(layers, eps) for layers in plan.ops)
        self.combine = Chain(plan.combine_layers, eps)

    def forward(self, states: list[State], keep: Tensor | None) -> Tensor:
        results = []
        for side, state, identity in zip((self.left, self.right), self.plan.states, self.plan.identities):
            x = side(states[state])
            results.append(x if keep is None or identity else drop_path(x, keep))
        joined = torch.cat(results, 1) if self.plan.combine == "concat" else results[0] + results[1]
        return self.combine(State(joined))


class Cell(nn.Module):
    """One cell. Keys: `inputs.i` fits input i, `blocks.b.left/right` are the operations, `outputs.s` fits state s."""

    def __init__(self, plan: CellPlan, eps: float) -> None:
        super().__init__()
        self.plan = plan
        self.inputs = nn.ModuleList(Chain(feed.layers, eps) for feed in plan.feeds)
        self.blocks = nn.ModuleList(Block(block, eps) for block in plan.blocks)
        self.outputs = nn.ModuleDict({str(state): Chain(layers, eps) for state, layers in plan.outputs})

    def forward(self, inputs: list[State], keep: Tensor | None) -> list[Tensor]:
        """The maps that leave the cell, from the maps it reads; `keep` is drop path's probability or None."""
        states = [State(fit(state)) if len(fit) else state for fit, state in zip(self.inputs, inputs)]
        for block in self.blocks:
            states.append(State(block(states, keep)))
        outputs = [self.outputs[str(state)](states[state]) for state, _ in self.plan.outputs]
        return outputs if self.plan.separate else [torch.cat(outputs, 1)]


class AuxiliaryHead(nn.Module):
    """A classifier on the map before the last reduction, at two thirds of the depth, used in training only
    (NASNet paper, appendix A.7). The size of its second convolution is that of the map it was made for."""

    def __init__(self, channels: int, size: tuple[int, int], num_classes: int, eps: float) -> None:
        super().__init__()
        kernel = tuple((n - 5) // 3 + 1 for n in size)
        self.size, self.least = size, tuple(3 * (n - 1) + 5 for n in kernel)
        self.pool = nn.AvgPool2d(5, 3)
        layers = (Conv("conv", channels, 128, (1, 1)), Norm("bn", 128), ReLU("relu"))
        self.project = Chain(layers, eps)
        layers = (Conv("conv", 128, 768, kernel, valid=True), Norm("bn", 768), ReLU("relu"))
        self.reduce = Chain(layers, eps)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, state: State) -> Tensor:
        if state.relu.shape[2] < self.least[0] or state.relu.shape[3] < self.least[1]:
            raise ConfigError(
                f"the auxiliary head was made for maps of {self.size} and gets {tuple(state.relu.shape[2:])}: train on "
                f"larger pictures, or set aux_size to the size of the maps"
            )
        x = self.reduce(State(self.project(State(self.pool(state.relu)))))
        return self.classifier(x.mean((2, 3)))


class CellNetwork(Network):
    """A stem, stages of cells with a reduction cell between two stages, and a classifier.

    Input (batch, in_channels, height, width), normalised; at least 32 x 32 pixels with an ImageNet stem and 8 x 8 with
    CIFAR's. `forward` returns logits (batch, num_classes); in training mode a network with an auxiliary head returns
    (logits, auxiliary logits).

    `drop_path_keep` is the probability that the last cell keeps a path at the end of the training and `progress`
    (0-d tensor, 0 to 1) how much of the training is done: ScheduledDropPath, NASNet paper section A.7.
    """

    progress: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        scale, eps = config.scale, config.scale.bn_eps
        self.plan = plan = make_plan(config)
        self.stem = nn.ModuleList(Chain(layers, eps) for layers in plan.stem)
        self.cells = nn.ModuleDict({cell.name: Cell(cell, eps) for cell in plan.cells})
        self.head = Chain(plan.head, eps)
        self.dropout = nn.Dropout(0.0)
        self.num_features = plan.head_channels
        self.classifier = nn.Linear(plan.head_channels, config.num_classes)
        self.aux = None
        if scale.aux_size is not None:
            channels = sum(plan.cells[plan.aux - len(plan.stem)].parts)
            self.aux = AuxiliaryHead(channels, scale.aux_size, config.num_classes, eps)
        self.feature_strides = tuple(plan.strides[step] for step in plan.features)
        self.feature_channels = tuple(
            sum(plan.cells[step - len(plan.stem)].parts) if step >= len(plan.stem) else plan.stem[step][-1].channels
            for step in plan.features
        )
        self.minimum_size = scale.minimum_size
        self.drop_path_keep = 1.0
        self.checkpointing = False
        self.register_buffer("progress", torch.ones((), device="cpu"), persistent=False)

    def keep_probability(self, index: int) -> Tensor | None:
        """Drop path's v3 schedule for cell `index`: linear in depth and in the training's progress."""
        if not self.training or self.drop_path_keep >= 1:
            return None
        depth = (index + 1) / len(self.plan.cells)
        return 1 - self.progress.clamp(max=1) * (depth * (1 - self.drop_path_keep))

    def steps(self, x: Tensor):
        """Yields, step by step, the maps that the stem's parts and the cells put out (see plan.NetworkPlan)."""
        last_use = {feed.step: index for index, cell in enumerate(self.plan.cells) for feed in cell.feeds}
        maps: dict[int, list[State]] = {}
        state = State(x)
        for step, part in enumerate(self.stem):
            state = State(part(state))
            maps[step] = [state]
            yield maps[step]
        for index, (plan, cell) in enumerate(zip(self.plan.cells, self.cells.values())):
            inputs = [maps[feed.step][feed.part] for feed in plan.feeds]
            keep = self.keep_probability(index)
            outputs = self._checkpointed(cell, inputs, keep) if self.checkpointing else cell(inputs, keep)
            for done in [step for step in maps if last_use.get(step, -1) <= index]:
                del maps[done]  # what no later cell reads is freed at once
            maps[len(self.stem) + index] = [State(output) for output in outputs]
            yield maps[len(self.stem) + index]

    def _checkpointed(self, cell: Cell, inputs: list[State], keep: Tensor | None) -> list[Tensor]:
        def run(*tensors: Tensor) -> list[Tensor]:
            return cell([State(tensor) for tensor in tensors], keep)

        def contexts():
            return _StatisticsHeld(cell, False), _StatisticsHeld(cell, True)

        tensors = [state.raw for state in inputs]
        return checkpoint(run, *tensors, use_reentrant=False, context_fn=contexts)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        aux = None
        for step, maps in enumerate(self.steps(self.checked(x))):
            if step == self.plan.aux and self.aux is not None and self.training:
                aux = self.aux(_joined(maps))
        logits = self.classifier(self.dropout(self.head(_joined(maps)).mean((2, 3))))
        return logits if aux is None else (logits, aux)

    def features(self, x: Tensor) -> list[Tensor]:
        """The last map at each stride of `feature_strides`, before any ReLU; `feature_channels` are their widths."""
        steps = enumerate(self.steps(self.checked(x)))
        return [_joined(maps).raw for step, maps in steps if step in self.plan.features]


class _StatisticsHeld:
    """Holds the running statistics of a cell's batch norms still, or lets them move, while it is entered."""

    def __init__(self, cell: Cell, held: bool) -> None:
        self.norms = [module for module in cell.modules() if isinstance(module, BatchNorm)]
        self.held = held

    def __enter__(self) -> None:
        self._set(not self.held)

    def __exit__(self, *error) -> None:
        self._set(True)

    def _set(self, update: bool) -> None:
        for norm in self.norms:
            norm.update_statistics = update


def _joined(maps: list[State]) -> State:
    return maps[0] if len(maps) == 1 else State(torch.cat([state.raw for state in maps], 1))
