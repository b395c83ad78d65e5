"""One training step: the loss under a gate sample, its weight gradients, and the gradient of the gates."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .estimators import Estimator
from .gated import BATCHES_TRACKED, Network, Noise, Pass
from .gates import Gates, logits
from .groups import Active
from .optimizer import Update
from .saliency import gate_gradients
from .slices import put, take

Inputs = tuple[Tensor, ...]
Loss = Callable[[tuple[Tensor, ...], Any], Tensor]
"""The mean loss of a network's outputs against a target, of whatever kind the loss knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The mean loss of a minibatch under a gate sample, and the gradients of the active slices."""

    loss: float
    updates: list[Update]


class Sliced:
    """Computes the active slices alone, convolutions and products in `precision`."""

    def __init__(self, network: Network, loss: Loss, *, precision: str = "float32") -> None:
        self.network = network
        self.loss = loss
        self.precision = precision

    def evaluate(self, x: Inputs, y: Any, active: Active, noise: Noise) -> float:
        """The loss alone: no gradients, running statistics untouched."""
        one = self.pass_(active, self.tensors(active), noise, update_stats=False)
        with torch.no_grad():
            return self.loss(self.network.run(x, one), y).item()

    def observe(self, x: Inputs, active: Active, noise: Noise) -> None:
        """A forward pass in training mode that only moves BatchNorm's statistics of the active units."""
        tensors = self.tensors(active)
        with torch.no_grad():
            self.network.run(x, self.pass_(active, tensors, noise, update_stats=True))
        self.store(tensors, active)

    def differentiate(
        self, x: Inputs, y: Any, active: Active, noise: Noise, *, update_stats: bool = True
    ) -> Evaluation:
        """The loss and the gradients of the active slices; BatchNorm's statistics of active units move."""
        loss, gradients = self.backward(x, y, active, noise, update_stats=update_stats)
        return self.evaluation(loss, gradients, active)

    def backward(
        self, x: Inputs, y: Any, active: Active, noise: Noise, *, update_stats: bool
    ) -> tuple[float, dict[str, Tensor]]:
        """The loss, and its gradient in every parameter as the pass computes with it."""
        network = self.network
        tensors = self.tensors(active)
        leaves = {name: tensors[name].detach().requires_grad_() for name in network.parameters}
        one = self.pass_(active, tensors | leaves, noise, update_stats=update_stats)
        loss = self.loss(network.run(x, one), y)
        gradients = _gradients(loss, list(leaves.values()))
        if update_stats:
            self.store(tensors, active)
        return loss.item(), dict(zip(leaves, gradients, strict=True))

    def evaluation(self, loss: float, gradients: dict[str, Tensor], active: Active) -> Evaluation:
        """With the gradients of the active slices."""
        updates = [
            Update(name=name, indices=indices, gradient=gradient, part=active.gate(name, gradient))
            for name, gradient in gradients.items()
            for indices in [active.indices(self.network.dims[name], self.network.device)]
        ]
        return Evaluation(loss=loss, updates=updates)

    def tensors(self, active: Active) -> dict[str, Tensor]:
        """The parameters and buffers that the pass computes with."""
        return self.network.slices(active)

    def pass_(
        self, active: Active, tensors: dict[str, Tensor], noise: Noise | None, *, update_stats: bool
    ) -> Pass:
        """The pass that `Network.run` makes."""
        return Pass(
            active=active,
            tensors=tensors,
            noise=noise,
            update_stats=update_stats,
            precision=self.precision,
        )

    def store(self, tensors: dict[str, Tensor], active: Active) -> None:
        """Write the active entries of the buffers that the pass has moved back, and count the batch."""
        for name, buffer in self.network.buffers.items():
            indices = active.indices(self.network.dims[name], self.network.device)
            if not name.endswith(BATCHES_TRACKED):
                put(buffer, indices, tensors[name])
        self.count()

    def count(self) -> None:
        """One more batch that the statistics have seen."""
        tracked = [buffer for name, buffer in self.network.buffers.items() if name.endswith(BATCHES_TRACKED)]
        if tracked:
            torch._foreach_add_(tracked, 1)


class Masked(Sliced):
    """Computes all of `base` and multiplies the consumers' input weights by the gates: the network by default.

    `active` units are some of `base`.
    """

    def __init__(
        self, network: Network, loss: Loss, base: Active | None = None, *, precision: str = "float32"
    ) -> None:
        super().__init__(network, loss, precision=precision)
        self.base = network.everything if base is None else base
        self._live: tuple[Active, tuple[Tensor, ...]] | None = None

    def live(self, active: Active) -> tuple[Tensor, ...]:
        """Of each axis 1 where a position of `base` is active and 0 elsewhere."""
        if self._live is None or self._live[0] is not active:
            self._live = active, self.base.gates_of(active, self.network.device)
        return self._live[1]

    def tensors(self, active: Active) -> dict[str, Tensor]:
        """Gated parameters; copies of the statistics, because all of their entries move."""
        tensors = self.network.slices(self.base)
        parameters = {name: self.gate(name, tensors[name], active) for name in self.network.parameters}
        moving = [name for name in self.network.buffers if tensors[name].is_floating_point()]
        copies = torch._foreach_mul([tensors[name] for name in moving], 1.0) if moving else []
        return tensors | parameters | dict(zip(moving, copies, strict=True))

    def pass_(
        self, active: Active, tensors: dict[str, Tensor], noise: Noise | None, *, update_stats: bool
    ) -> Pass:
        """All of `base`."""
        return super().pass_(self.base, tensors, noise, update_stats=update_stats)

    def evaluation(self, loss: float, gradients: dict[str, Tensor], active: Active) -> Evaluation:
        """With the gradients of `base`, of which the active entries take part."""
        whole = super().evaluation(loss, gradients, self.base)
        return replace(
            whole, updates=[replace(u, part=self.part(u.name, u.gradient, active)) for u in whole.updates]
        )

    def slopes(self, x: Inputs, y: Any, z: Tensor, noise: Noise) -> tuple[Evaluation, Tensor]:
        """A training pass at the gates `z` (G,) bool, and d loss / dz (G,) of all in `base`, the closed ones too."""
        active = self.network.active(z)
        evaluation = self.differentiate(x, y, active, noise)
        return evaluation, gate_gradients(self.network, self.base, evaluation.updates, z)

    def gate(self, name: str, tensor: Tensor, active: Active) -> Tensor:
        """The tensor times the gates of the units that a layer reads along it, or that its entries are."""
        for dim, axis in enumerate(self.network.dims[name]):
            if axis is not None and (name, dim) in self.network.coupling.readers:
                tensor = tensor * along(self.live(active)[axis], dim, tensor)
        return active.gated(name, tensor)

    def part(self, name: str, tensor: Tensor, active: Active) -> Tensor | None:
        """1 where an entry of a slice of the tensor called `name` belongs to active units alone, and 0 elsewhere.

        None where no units have to do with it.
        """
        part = active.gate(name, tensor)
        for dim, axis in enumerate(self.network.dims[name]):
            if axis is not None:
                live = along(self.live(active)[axis], dim, tensor)
                part = live.expand_as(tensor) if part is None else part * live
        return None if part is None else part.contiguous()

    def store(self, tensors: dict[str, Tensor], active: Active) -> None:
        """Write the statistics of the active units that the pass has moved back, and count the batch."""
        for name, buffer in self.network.buffers.items():
            if buffer.is_floating_point():
                moved, part = tensors[name], self.part(name, tensors[name], active)
                indices = self.base.indices(self.network.dims[name], buffer.device)
                put(buffer, indices, moved if part is None else take(buffer, indices).lerp(moved, part))
        self.count()


def along(gates: Tensor, dim: int, tensor: Tensor) -> Tensor:
    """`gates` (n,) in the type of a tensor, to be multiplied with it along `dim`."""
    return gates.to(tensor.dtype).view([-1 if d == dim else 1 for d in range(tensor.dim())])


def gated_outputs(network: Network, x: Inputs, active: Active) -> tuple[Tensor, ...]:
    """Outputs, each (N, ...), in evaluation mode of the full network whose gates are open for `active`."""
    masked = Masked(network, lambda outputs, _: outputs[0])
    with torch.no_grad():
        return network.run(x, masked.pass_(active, masked.tensors(active), None, update_stats=False))


def _gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Gradients, zero for what a sleeping layer cuts off from the loss."""
    if not loss.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, gradients, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateStep:
    """What a stage-2 minibatch tells: the weights' evaluation at b, and the gradient (G,) that moves phi.

    That is d E[loss] / d phi, or d E[loss] / d pi of an estimator that is `natural`; None where nobody looked.
    """

    evaluation: Evaluation
    gradient: Tensor | None


def gate_step(
    runner: Sliced,
    gates: Gates,
    k: float,
    estimator: Estimator,
    batch: tuple[Inputs, Any],
    u: Tensor,
    noise: Noise,
    *,
    looks: bool = True,
    awake: Active | None = None,
) -> GateStep:
    """Evaluate the loss at the samples of `u` (rows, G) and estimate its gradient: in phi it is k times that in a.

    The weights train at the first.  The others use BatchNorm in the same mode with its running statistics left
    alone, and the same dropout noise; what agrees with the first is not evaluated again.  At k = inf phi has no
    gradient, and at k = 0 no influence.  `awake` are the gates' own, for those who have them at hand.
    """
    (x, y), network = batch, runner.network
    a = logits(gates.phi, k)
    b, *others = (sample & gates.awake for sample in estimator.samples(u, a))
    if estimator.gradient is None and looks and 0 < k < math.inf:
        base = network.active(gates.awake) if awake is None else awake
        masked = Masked(network, runner.loss, base, precision=runner.precision)
        evaluation, slopes = masked.slopes(x, y, b, noise)
        return GateStep(evaluation=evaluation, gradient=slopes * gates.awake)
    evaluation = runner.differentiate(x, y, network.active(b), noise)
    if not looks:
        return GateStep(evaluation=evaluation, gradient=None)
    if estimator.gradient is None or math.isinf(k):
        return GateStep(evaluation=evaluation, gradient=torch.zeros_like(gates.phi))
    f = [
        evaluation.loss if torch.equal(z, b) else runner.evaluate(x, y, network.active(z), noise)
        for z in (b, *others)
    ]
    return GateStep(evaluation=evaluation, gradient=k * estimator.gradient(u, a, f) * gates.awake)
