"""The controller of the NASNet search: an LSTM that samples one decision after another, trained by PPO or REINFORCE
(NASNet paper, appendix A.3; Zoph & Le 2016, section 3.2)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..spaces.base import Space, Tokens
from .base import Observation, Proposal, checked_count, chosen_elsewhere, stage_note
from .policy import Score, make_policy, padded
from .settings import ControllerSettings

LEAST_DEVIATION = 1e-5  # of a batch of rewards
LOG_DIGITS = 5  # of log-probabilities in notes


@contextmanager
def _one_thread() -> Iterator[None]:
    """Uses one thread for operations as small as these: several threads, which wait for each other while workers are
    busy, would take ten times as long. The search then also does not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Controller:
    """The policy as a searcher. Runs on the CPU: it is tiny.

    The proposal keeps its log-probabilities under the policy that proposed it. When its result arrives, the policy has
    changed, with hundreds of children in flight by more than PPO's clip. So the ratio of each decision is to the policy
    as it is when an update begins, and the clip limits what one update may do: around the policy that acted it would
    leave most of the late children without a gradient. Where nothing is in flight, the two are the same. (The ratio of
    a whole "sequence", which the first version clipped, is to the policy that acted.)
    """

    def __init__(self, space: Space, settings: ControllerSettings, seed: int, ppo: bool = True) -> None:
        self.space, self.settings, self.batch, self.ppo = space, settings, settings.batch, ppo
        self.generator = torch.Generator().manual_seed(seed)
        self.policy = make_policy(space, settings.hidden, settings.initial, self.generator)
        self.parameters = dict(self.policy.named_parameters())  # parameters that the cell shares appear once
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=settings.learning_rate)
        self.numbers = ("log_probability" if settings.ratio == "sequence" else "log_probabilities",)
        self.baseline: float | None = None
        self.proposed = 0
        self.left: list[Proposal] = []  # sampled, and not yet asked for

    @_one_thread()
    def propose(self, n: int) -> list[Proposal]:
        """Samples whole batches: their random numbers depend on the size, and a search that ends within a batch must
        begin like a longer one."""
        while len(self.left) < n:
            stages = [self.space.stage(self.proposed + place) for place in range(self.batch)]
            self.proposed += self.batch
            self.left += [
                Proposal(tokens, self._note(taken) | stage_note(stage))
                for tokens, taken, stage in zip(*self.policy.sample(stages), stages)
            ]
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    @_one_thread()
    @torch.no_grad()
    def proposal(self, tokens: Tokens) -> Proposal:
        given = chosen_elsewhere(self.space, tokens)
        taken, _ = self.policy.scorer([tokens], [given.stage])()
        self._pad_moments()
        return Proposal(tokens, self._note(taken.squeeze(1).tolist()) | given.notes)

    def _note(self, taken: Sequence[float]) -> dict[str, Any]:
        """What `observe` has to know of the policy that made the decisions: their log-probabilities, or the sum."""
        if self.settings.ratio == "sequence":
            return {"log_probability": float(np.add.accumulate(np.array(taken, np.float32))[-1])}
        return {"log_probabilities": [round(p, LOG_DIGITS) for p in taken]}

    @_one_thread()
    def observe(self, observations: Sequence[Observation]) -> dict[str, float]:
        settings = self.settings
        sequences = [o.proposal.tokens for o in observations]
        score = self.policy.scorer(sequences, [o.proposal.stage for o in observations])
        self._pad_moments()
        behaviour = self._behaviour([o.proposal for o in observations])
        rewards = torch.tensor([o.reward for o in observations])
        baselines, self.baseline = self._baselines(rewards)
        advantages = rewards - baselines
        # If all rewards of a batch are equal, as with failures only, their deviation means nothing. Divided by it, they
        # would dominate Adam's moments for thousands of steps.
        if settings.normalise and len(rewards) > 1 and rewards.std() > LEAST_DEVIATION:
            advantages = advantages / (rewards.std() + 1e-8)
        anchor = behaviour if settings.ratio == "sequence" else None
        for _ in range(settings.epochs if self.ppo else 1):
            taken, entropy = self._scored(score)
            if anchor is None:
                anchor = taken.detach()
            ratio = (taken - anchor).exp()
            if self.ppo:
                clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                gain = torch.minimum(ratio * advantages, clipped * advantages)
            else:
                gain = taken * advantages
            loss = -(gain.sum(0) + settings.entropy_weight * entropy).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        made = sum(map(len, sequences))
        drift = taken.detach() - behaviour
        far = (ratio < 1 - settings.clip) | (ratio > 1 + settings.clip)
        return {
            "policy/entropy": entropy.sum().item() / made,  # nats per decision, of the sequences observed
            "policy/baseline": self.baseline,
            "policy/reward": rewards.mean().item(),
            "policy/ratio": (drift.exp().sum() / (made if settings.ratio == "decision" else len(sequences))).item(),
            "policy/clipped": far.sum().item() / (made if settings.ratio == "decision" else len(sequences)),
            "policy/kl": (drift.exp() - 1 - drift).sum().item() / made,  # nats per decision, from those that acted
        }

    def _behaviour(self, proposals: Sequence[Proposal]) -> torch.Tensor:
        """The log-probabilities under the policy that acted: of decisions (steps, batch), zero after a sequence's end,
        or of sequences (1, batch)."""
        if self.settings.ratio == "sequence":
            return torch.tensor([[proposal.notes["log_probability"] for proposal in proposals]])
        rows = [torch.tensor(proposal.notes["log_probabilities"]) for proposal in proposals]
        return torch.nn.utils.rnn.pad_sequence(rows)

    def _scored(self, score: Score) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probabilities now, as `_behaviour` has them, and the entropy (batch,) summed over decisions."""
        taken, entropy = score()
        return taken if self.settings.ratio == "decision" else taken.sum(0, keepdim=True), entropy.sum(0)

    def _baselines(self, rewards: torch.Tensor) -> tuple[torch.Tensor, float]:
        """What is subtracted from each of a batch of rewards, in the order in which they came, and the average after
        them."""
        settings, mean = self.settings, rewards.mean().item()
        average = mean if self.baseline is None else self.baseline  # from zero it would overrate every early child
        if settings.baseline == "batch-mean":
            return torch.full_like(rewards, mean), mean
        decay = settings.baseline_decay
        if settings.baseline == "batch-average":
            return torch.full_like(rewards, average), decay * average + (1 - decay) * mean
        before = []
        for reward in rewards.tolist():
            before.append(average)
            average = decay * average + (1 - decay) * reward
        return torch.tensor(before), average

    def _pad_moments(self) -> None:
        """Gives parameters that have grown since Adam's last step moments of zero in their new part."""
        for parameter, state in self.optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq"):
                if state[key].shape != parameter.shape:
                    state[key] = padded(state[key], torch.zeros_like(parameter))

    @_one_thread()
    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"rng": self.generator.get_state(), "baseline": self.baseline}
        state |= {"proposed": self.proposed, "decisions": list(self.policy.rows)}
        state["left"] = [[list(proposal.tokens), proposal.notes] for proposal in self.left]
        for name, parameter in self.parameters.items():
            state[f"policy.{name}"] = parameter.detach().clone()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"adam.{key}.{name}"] = value.clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["rng"])
        self.baseline = state["baseline"]
        if self.baseline is not None and not (type(self.baseline) is float and math.isfinite(self.baseline)):
            raise ValueError("its baseline is no number")
        # Missing in the first version's states, whose spaces had neither stages nor changing decisions, as is "left".
        self.proposed = checked_count(state.get("proposed", 0))
        self.left = [Proposal(tuple(tokens), notes) for tokens, notes in state.get("left", ())]
        self.policy.rows = {name: row for row, name in enumerate(state.get("decisions", self.policy.rows))}
        if not all(isinstance(name, str) for name in self.policy.rows):
            raise ValueError("its decisions are not names")
        self.optimizer.state.clear()
        for name, parameter in self.parameters.items():
            parameter.data = _kept(state, f"policy.{name}")  # of the size to which it had grown
            if f"adam.step.{name}" in state:
                moments = {key: _kept(state, f"adam.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
                for key, shape in (("step", ()), ("exp_avg", parameter.shape), ("exp_avg_sq", parameter.shape)):
                    if len(moments[key].shape) != len(shape) or any(a > b for a, b in zip(moments[key].shape, shape)):
                        raise ValueError(f"adam.{key}.{name} is of the shape {tuple(moments[key].shape)}")
                self.optimizer.state[parameter] = moments
        self.policy.check()


def _kept(state: dict[str, Any], key: str) -> torch.Tensor:
    """A copy of a tensor of a saved state; raises ValueError if it is not of finite numbers."""
    tensor: torch.Tensor = state[key]
    if tensor.dtype != torch.float32 or not tensor.isfinite().all():
        raise ValueError(f"{key} is of {tensor.dtype}, or not of finite numbers")
    return tensor.clone()
