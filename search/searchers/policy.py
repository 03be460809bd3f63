"""The controller's policy: an LSTM that makes one decision after another (Zoph & Le 2016, section 3.1; NASNet paper,
appendix A.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..spaces.base import MAX_ELEMENTS, Choice, Decision, FixedSpace, Space, Subset, Tokens

Score = Callable[[], tuple[Tensor, Tensor]]
LEAST_LOG = -1e9  # used for the logarithm of 0, because -inf times 0 is NaN


def make_policy(space: Space, hidden: int, initial: float, generator: torch.Generator) -> "Policy":
    """The policy for the space; it draws its parameters, uniform in ±`initial`, and its samples from `generator`."""
    if isinstance(space, FixedSpace) and all(isinstance(decision, Choice) for decision in space.decisions):
        return FixedPolicy(space, hidden, initial, generator)
    return Policy(space, hidden, initial, generator)


class Policy(nn.Module):
    """A one-layer LSTM with parts for every decision, by its name: the weights of its output, and embeddings of what
    was decided, which are the input of the next step.

    A choice is made by a softmax. In a subset, each element has its own sigmoid, which decides whether it is chosen (as
    in Zoph & Le, section 3.3). The log-probability and entropy of a subset are sums over its elements, and its
    embedding is the sum of the embeddings of the chosen elements.

    The parts are rows of three tensors, padded to the widest decision; `rows` maps decisions to rows. The rows of
    decisions that are always the same are made at once, all others when a decision is first met: the tensors grow in
    place.
    """

    def __init__(self, space: Space, hidden: int, initial: float, generator: torch.Generator) -> None:
        super().__init__()
        self.space, self.initial, self.generator = space, initial, generator
        decisions = space.decisions if isinstance(space, FixedSpace) else ()
        self.rows = {decision.name: row for row, decision in enumerate(decisions)}
        rows, widest = len(decisions), max((decision.choices for decision in decisions), default=0)
        self.lstm = nn.LSTM(hidden, hidden)
        self.cell = nn.LSTMCell(hidden, hidden)  # the same weights, for one step at a time
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(self.cell, name, self.lstm.get_parameter(f"{name}_l0"))
        self.start = nn.Parameter(torch.empty(hidden))
        self.embedding = nn.Parameter(torch.empty(rows, widest, hidden))
        self.weight = nn.Parameter(torch.empty(rows, hidden, widest))
        self.bias = nn.Parameter(torch.empty(rows, 1, widest))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-initial, initial, generator=generator)
            self.bias.zero_()  # nothing is preferred at the start

    def check(self) -> None:
        """Raises ValueError if parameters that were put in from outside do not fit together."""
        (rows, widest, _), hidden = self.embedding.shape, self.lstm.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        shapes |= {"embedding": (rows, widest, hidden), "weight": (rows, hidden, widest), "bias": (rows, 1, widest)}
        shapes |= {"start": (hidden,), "lstm.weight_ih_l0": (4 * hidden, hidden), "lstm.bias_ih_l0": (4 * hidden,)}
        shapes |= {"lstm.weight_hh_l0": (4 * hidden, hidden), "lstm.bias_hh_l0": (4 * hidden,)}
        if rows < len(self.rows) or any(self.get_parameter(name).shape != shape for name, shape in shapes.items()):
            raise ValueError("the parameters do not fit together")

    @torch.no_grad()
    def sample(self, stages: Sequence[int]) -> tuple[list[Tokens], list[list[float]]]:
        """One sequence for each of the stages, and the log-probability of each of its decisions; raises ConfigError if
        a sequence never ends."""
        n, hidden = len(stages), len(self.start)
        sequences: list[list[int]] = [[] for _ in stages]
        taken: list[list[float]] = [[] for _ in stages]
        outputs, memory = torch.zeros(n, hidden), torch.zeros(n, hidden)
        inputs, going = self.start.repeat(n, 1), list(range(n))
        while met := [
            (place, decision)
            for place in going
            if (decision := self.space.following(sequences[place], stages[place])) is not None
        ]:
            going = [place for place, _ in met]
            parts = self._parts([decision for _, decision in met])
            outputs[going], memory[going] = self.cell(inputs[going], (outputs[going], memory[going]))
            logits = self._logits(outputs[going], parts)
            chosen = parts.drawn(logits, self.generator)
            inputs[going] = self._embedded(chosen, parts)
            log_p = parts.scored(logits, chosen)[0]
            for place, token, each in zip(going, parts.tokens(chosen).tolist(), log_p.tolist()):
                sequences[place].append(token)
                taken[place].append(each)
        return [tuple(tokens) for tokens in sequences], taken

    def scorer(self, sequences: Sequence[Tokens], stages: Sequence[int]) -> Score:
        """A function for the log-probability of each decision of the sequences and the policy's entropy there, as the
        policy is when the function is called: (steps, batch) each, zero after a sequence's end."""
        made = [self.space.along(tokens, stage) for tokens, stage in zip(sequences, stages)]
        parts = self._parts([decision for decisions in made for decision in decisions])
        chosen = parts.chosen(torch.tensor([token for tokens in sequences for token in tokens], dtype=torch.long))
        # The step and sequence of each decision: sequences that end early leave steps that nothing is read from.
        step = torch.tensor([step for tokens in sequences for step in range(len(tokens))], dtype=torch.long)
        sequence = torch.tensor([place for place, tokens in enumerate(sequences) for _ in tokens], dtype=torch.long)
        steps, batch = max(map(len, sequences)), len(sequences)

        def score() -> tuple[Tensor, Tensor]:
            embedded = self._embedded(chosen, parts)
            after = embedded.new_zeros(steps, batch, len(self.start)).index_put((step, sequence), embedded)
            hidden, _ = self.lstm(torch.cat([self.start.expand(1, batch, -1), after[:-1]]))
            log_p, entropy = parts.scored(self._logits(hidden[step, sequence], parts), chosen)
            none = log_p.new_zeros(steps, batch)
            return none.index_put((step, sequence), log_p), none.index_put((step, sequence), entropy)

        return score

    def _parts(self, decisions: Sequence[Decision]) -> "_Parts":
        """The parts of the decisions; those of decisions that were never met before are made."""
        for decision in decisions:
            self.rows.setdefault(decision.name, len(self.rows))
        choices = torch.tensor([[decision.choices] for decision in decisions])
        widest = int(choices.max())
        self._make_room(len(self.rows), widest)
        row = torch.tensor([self.rows[decision.name] for decision in decisions])
        subset = torch.tensor([[isinstance(decision, Subset)] for decision in decisions])
        return _Parts(row, torch.arange(widest) >= choices, subset)

    def _make_room(self, rows: int, widest: int) -> None:
        """Lets the tensors grow to at least `rows` rows and `widest` columns."""
        room, width, hidden = self.embedding.shape
        if rows <= room and widest <= width:
            return
        if rows > room:
            room = max(rows, 2 * room)  # some in reserve: a space may add thousands of decisions one by one
        width = max(widest, width)
        for parameter, shape in (
            (self.embedding, (room, width, hidden)),
            (self.weight, (room, hidden, width)),
            (self.bias, (room, 1, width)),
        ):
            new = torch.zeros(shape)
            if parameter is not self.bias:
                new.uniform_(-self.initial, self.initial, generator=self.generator)
            parameter.data = padded(parameter.data, new)

    def _logits(self, hidden: Tensor, parts: "_Parts") -> Tensor:
        """(decisions, hidden) -> (decisions, widest of them)."""
        weight, bias = (tensor[..., : parts.widest].index_select(0, parts.row) for tensor in (self.weight, self.bias))
        return torch.baddbmm(bias, hidden.unsqueeze(1), weight).squeeze(1)

    def _embedded(self, chosen: Tensor, parts: "_Parts") -> Tensor:
        """(decisions, widest of them), true where something was chosen -> (decisions, hidden)."""
        embedding = self.embedding[:, : parts.widest].index_select(0, parts.row)
        return torch.bmm(chosen.to(embedding.dtype).unsqueeze(1), embedding).squeeze(1)


@dataclass(frozen=True)
class _Parts:
    """The rows of some decisions, and what can be decided: `row` (decisions,), `impossible` (decisions, widest of
    them), true beyond a decision's choices, and `subset` (decisions, 1), true if the decision is a subset."""

    row: Tensor
    impossible: Tensor
    subset: Tensor

    @property
    def widest(self) -> int:
        return self.impossible.shape[1]

    def scored(self, logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probability (decisions,) of what was chosen and the entropy (decisions,)."""
        one = logits.masked_fill(self.impossible, -torch.inf).log_softmax(1)
        taken, left = F.logsigmoid(logits), F.logsigmoid(-logits)
        log_p = torch.where(self.subset, torch.where(chosen, taken, left), torch.where(chosen, one, 0.0))
        certain = torch.where(
            self.subset, taken.exp() * taken + left.exp() * left, one.exp() * one.clamp(min=LEAST_LOG)
        )
        return log_p.masked_fill(self.impossible, 0).sum(1), -certain.masked_fill(self.impossible, 0).sum(1)

    def drawn(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """A sample: true (decisions, widest) where something is chosen."""
        p = logits.masked_fill(self.impossible, -torch.inf).softmax(1)
        one = torch.zeros_like(self.impossible).scatter(1, torch.multinomial(p, 1, generator=generator), True)
        some = torch.rand(logits.shape, generator=generator) < logits.sigmoid()
        return torch.where(self.subset, some & ~self.impossible, one)

    def chosen(self, tokens: Tensor) -> Tensor:
        """(decisions,) -> true (decisions, widest) where something was chosen."""
        column, tokens = torch.arange(self.widest), tokens.unsqueeze(1)
        return torch.where(self.subset, tokens >> column.clamp(max=MAX_ELEMENTS) & 1 == 1, tokens == column)

    def tokens(self, chosen: Tensor) -> Tensor:
        """The inverse of `chosen`: (decisions, widest) -> (decisions,)."""
        column = torch.arange(self.widest)
        worth = torch.where(self.subset, 1 << column.clamp(max=MAX_ELEMENTS), column)
        return (chosen * worth).sum(1)


class FixedPolicy(Policy):
    """The same policy for spaces where all decisions are choices and always the same, with a few operations instead of
    dozens: all sequences have the same length, and row i has the parts of step i."""

    impossible: Tensor  # (steps, 1, widest), true beyond a decision's choices

    def __init__(self, space: FixedSpace, hidden: int, initial: float, generator: torch.Generator) -> None:
        super().__init__(space, hidden, initial, generator)
        choices = torch.tensor([[decision.choices] for decision in space.decisions])
        impossible = torch.arange(self.weight.shape[2]) >= choices
        self.register_buffer("impossible", impossible.unsqueeze(1), persistent=False)

    def check(self) -> None:
        super().check()
        if self.bias.shape != self.impossible.shape:
            raise ValueError("the parameters are those of other decisions")

    @torch.no_grad()
    def sample(self, stages: Sequence[int]) -> tuple[list[Tokens], list[list[float]]]:
        n = len(stages)
        state, inputs = None, self.start.expand(n, -1)
        tokens, taken = [], []
        for step in range(len(self.weight)):
            state = self.cell(inputs, state)
            logits = torch.addmm(self.bias[step], state[0], self.weight[step])
            log_p = logits.masked_fill(self.impossible[step], -torch.inf).log_softmax(1)
            chosen = torch.multinomial(log_p.exp(), 1, generator=self.generator)
            taken.append(log_p.gather(1, chosen).squeeze(1))
            tokens.append(chosen.squeeze(1))
            inputs = self.embedding[step, tokens[-1]]
        return list(map(tuple, torch.stack(tokens, 1).tolist())), torch.stack(taken, 1).tolist()

    def scorer(self, sequences: Sequence[Tokens], stages: Sequence[int]) -> Score:
        tokens = torch.tensor(sequences)

        def score() -> tuple[Tensor, Tensor]:
            log_p = self.log_probabilities(tokens)
            entropy = -(log_p.exp() * log_p.clamp(min=LEAST_LOG)).sum(2)
            return log_p.gather(2, tokens.T.unsqueeze(2)).squeeze(2), entropy

        return score

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """log p of every choice at every step of known sequences: (batch, steps) -> (steps, batch, widest)."""
        steps, batch = self.embedding.shape[0], tokens.shape[0]
        chosen = self.embedding[torch.arange(steps - 1).unsqueeze(1), tokens.T[:-1]]  # (steps - 1, batch, hidden)
        inputs = torch.cat([self.start.expand(1, batch, -1), chosen])
        hidden, _ = self.lstm(inputs)
        logits = torch.baddbmm(self.bias, hidden, self.weight)
        return logits.masked_fill(self.impossible, -torch.inf).log_softmax(2)


def padded(old: Tensor, new: Tensor) -> Tensor:
    """`new`, with `old` in its first corner."""
    new[tuple(map(slice, old.shape))] = old
    return new
