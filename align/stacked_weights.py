"""The weights of runs that train together, as rows of one table, and AdamW on all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .model import LARGEST_LOG_SCALE
from .training import Training

# M = runs, F = numbers of a model, all parameters end to end


class StackedWeights:
    """The parameters, their averages and the optimisers' moments of M runs alike in structure.

    Those of the runs' own models become parts of the table, so that a run is validated and saved
    as if it were alone. `release` gives a run memory of its own again.
    """

    def __init__(self, runs: Sequence[Training]) -> None:
        self._runs = list(runs)
        named = dict(runs[0].model.named_parameters())
        self._names = list(named)
        self._sizes = [parameter.numel() for parameter in named.values()]
        device = runs[0].model.log_logit_scale.device
        self._values = torch.empty(len(runs), sum(self._sizes), device=device)
        """(M, F) float32, and so the moments of the gradients and the average."""
        self._mean, self._variance = (torch.zeros_like(self._values) for _ in range(2))
        has_average = runs[0].averaged is not None
        self._average = torch.empty_like(self._values) if has_average else None
        for row, run in enumerate(runs):
            self._adopt(row, run)
        self._is_matrix = self._of_numbers([parameter.ndim >= 2 for parameter in named.values()])
        self._log_scales = self._values[:, sum(self._sizes[: self._place("log_logit_scale")])]
        parts = torch.split(self._values, self._sizes, dim=1)
        self.tensors = {
            name: part.detach().view(len(runs), *parameter.shape).requires_grad_()
            for (name, parameter), part in zip(named.items(), parts, strict=True)
        }
        """Each parameter of all runs, by name: (M, ...) float32, a part of the table."""

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], learning_rates: Sequence[float]) -> Tensor:
        """A step of each run's AdamW, as `Training` takes it; (M,) norms before the clipping.

        gradients: of `tensors`, in their order; None for one that no term depends on, which stays
        as it is. learning_rates: of each run.
        """
        optimiser = self._runs[0].optimiser.param_groups[0]
        beta_1, beta_2 = optimiser["betas"]
        table = self._table(gradients)
        largest, decays, rates, corrections, shares = self._numbers(
            learning_rates, beta_1=beta_1, beta_2=beta_2
        )
        norms: Tensor = torch.linalg.vector_norm(table, dim=1)
        table *= (largest / (norms[:, None] + 1e-6)).clamp(max=1)  # as clip_grad_norm_ has it
        is_decayed = self._is_matrix & self._of_numbers([own is not None for own in gradients])
        self._values *= 1 - decays * is_decayed
        self._mean.lerp_(table, 1 - beta_1)
        self._variance.mul_(beta_2).addcmul_(table, table, value=1 - beta_2)
        lengths = (self._variance.sqrt() / corrections).add_(optimiser["eps"])
        self._values.addcdiv_(self._mean * rates, lengths, value=-1)
        self._log_scales.clamp_(max=LARGEST_LOG_SCALE)
        if self._average is not None:
            self._average.lerp_(self._values, shares)
        return norms

    def settle(self) -> None:
        """Write into the runs how many steps were taken, which a saved state has, too."""
        for run in self._runs:
            for state in run.optimiser.state.values():
                state["step"].fill_(run.step)
            if run.averaged is not None:
                run.averaged.n_averaged.fill_(run.step)

    def _table(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """(M, F), zeros where there is no gradient."""
        num_runs = len(self._runs)
        parts = [
            self._values.new_zeros(num_runs, size) if own is None else own.reshape(num_runs, -1)
            for own, size in zip(gradients, self._sizes, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def _numbers(
        self, learning_rates: Sequence[float], *, beta_1: float, beta_2: float
    ) -> tuple[Tensor, ...]:
        """Of each run, (M, 1): largest norm, decay, rate and corrections for the moments' start at
        zero, and the newest weights' share of the average. Sent to the device in one piece."""
        rows = []
        for run, rate in zip(self._runs, learning_rates, strict=True):
            settings, step = run.config.optimiser, run.step
            share = 1.0 if step == 1 else 1 - (settings.ema_decay or 0.0)
            corrections = 1 - beta_1**step, (1 - beta_2**step) ** 0.5
            rows.append(
                [
                    settings.max_gradient_norm,
                    rate * settings.weight_decay,
                    rate / corrections[0],
                    corrections[1],
                    share,
                ]
            )
        table = torch.tensor(rows).to(self._values.device)
        return torch.split(table, 1, dim=1)

    def _of_numbers(self, of_parameters: Sequence[bool]) -> Tensor:
        """(F,) bool, what is said of each parameter, for each of its numbers."""
        sizes = torch.tensor(self._sizes)
        return torch.tensor(of_parameters).repeat_interleave(sizes).to(self._values.device)

    def _place(self, name: str) -> int:
        return self._names.index(name)

    def _adopt(self, row: int, run: Training) -> None:
        """Copy what the run has into the row, and make it the run's."""
        for parameter, part in self._parts(run.model, self._values[row]):
            part.copy_(parameter.detach())
            parameter.data = part
        moments = [torch.split(own[row], self._sizes) for own in (self._mean, self._variance)]
        for parameter, mean, variance in zip(run.model.parameters(), *moments, strict=True):
            before = run.optimiser.state.get(parameter, {})
            state = {
                "step": before.get("step", torch.zeros(())),
                "exp_avg": mean.view_as(parameter),
                "exp_avg_sq": variance.view_as(parameter),
            }
            for name in ("exp_avg", "exp_avg_sq"):
                if name in before:
                    state[name].copy_(before[name])
            run.optimiser.state[parameter] = state
        if run.averaged is not None and self._average is not None:
            for parameter, part in self._parts(run.averaged.module, self._average[row]):
                part.copy_(parameter.detach())
                parameter.data = part

    def _parts(self, model: nn.Module, row: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The model's parameters, and the part of a row, (F,), that each has."""
        for parameter, part in zip(model.parameters(), torch.split(row, self._sizes), strict=True):
            yield parameter, part.view_as(parameter)


def release(run: Training) -> None:
    """Give a run that is over memory of its own, so that the table it was part of can go."""
    run.optimiser.state.clear()
    for model in (run.model, run.averaged):
        for parameter in model.parameters() if model is not None else ():
            parameter.data = parameter.detach().clone()
