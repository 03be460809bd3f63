"""The controller's policy: an LSTM with one softmax and one embedding per decision."""

import torch
from torch import Tensor, nn

from ..spaces.base import Space


class Policy(nn.Module):
    """A one-layer LSTM with one softmax, and one embedding of what was chosen, per decision.

    The softmaxes of all decisions are one tensor, padded to the widest, so that a known sequence is scored in a few
    operations instead of dozens.
    """

    def __init__(self, space: Space, hidden: int, initial: float, generator: torch.Generator) -> None:
        super().__init__()
        choices = torch.tensor([decision.choices for decision in space.decisions])
        steps, widest = len(choices), int(choices.max())
        self.lstm = nn.LSTM(hidden, hidden)
        self.cell = nn.LSTMCell(hidden, hidden)  # the same weights, for one step at a time
        self.cell.weight_ih, self.cell.weight_hh = self.lstm.weight_ih_l0, self.lstm.weight_hh_l0
        self.cell.bias_ih, self.cell.bias_hh = self.lstm.bias_ih_l0, self.lstm.bias_hh_l0
        self.start = nn.Parameter(torch.empty(hidden))
        self.embedding = nn.Parameter(torch.empty(steps, widest, hidden))
        self.weight = nn.Parameter(torch.empty(steps, hidden, widest))
        self.bias = nn.Parameter(torch.empty(steps, 1, widest))
        impossible = torch.arange(widest) >= choices.unsqueeze(1)
        self.register_buffer("impossible", impossible.unsqueeze(1), persistent=False)  # (steps, 1, widest)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-initial, initial, generator=generator)
            self.bias.zero_()  # no choice is preferred at the start

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """log p of every choice at every step of known sequences: (batch, steps) -> (steps, batch, widest)."""
        steps, batch = self.embedding.shape[0], tokens.shape[0]
        chosen = self.embedding[torch.arange(steps - 1).unsqueeze(1), tokens.T[:-1]]  # (steps - 1, batch, hidden)
        inputs = torch.cat([self.start.expand(1, batch, -1), chosen])
        hidden, _ = self.lstm(inputs)
        logits = torch.baddbmm(self.bias, hidden, self.weight)
        return logits.masked_fill(self.impossible, -torch.inf).log_softmax(2)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n sequences (n, steps), and the log-probability of each (n,)."""
        state, inputs = None, self.start.expand(n, -1)
        tokens, total = [], torch.zeros(n)
        for step in range(len(self.weight)):
            state = self.cell(inputs, state)
            logits = torch.addmm(self.bias[step], state[0], self.weight[step])
            log_p = logits.masked_fill(self.impossible[step], -torch.inf).log_softmax(1)
            chosen = torch.multinomial(log_p.exp(), 1, generator=generator)
            total += log_p.gather(1, chosen).squeeze(1)
            tokens.append(chosen.squeeze(1))
            inputs = self.embedding[step, tokens[-1]]
        return torch.stack(tokens, 1), total
