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
from .slices import Indices, put, take

Inputs = tuple[Tensor, ...]
Loss = Callable[[tuple[Tensor, ...], Any], Tensor]
"""The mean loss of a network's outputs against a target, of whatever kind the loss knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The mean loss of a minibatch under a gate sample, and the gradients of the active slices."""

    loss: float
    updates: list[Update]


class Sliced:
    """Computes the active slices alone."""

    def __init__(self, network: Network, loss: Loss) -> None:
        self.network = network
        self.loss = loss

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
            Update(name=name, indices=indices, gradient=self.cut(gradient, indices))
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
        return Pass(active=active, tensors=tensors, noise=noise, update_stats=update_stats)

    def cut(self, value: Tensor, indices: Indices) -> Tensor:
        """The active slice of a gradient or buffer of the pass: here it is one already."""
        return value

    def store(self, tensors: dict[str, Tensor], active: Active) -> None:
        """Write the active entries of the buffers that the pass has moved back, and count the batch."""
        for name, buffer in self.network.buffers.items():
            indices = active.indices(self.network.dims[name], self.network.device)
            if name.endswith(BATCHES_TRACKED):
                buffer += 1
            else:
                put(buffer, indices, self.cut(tensors[name], indices))


class Masked(Sliced):
    """Computes everything and multiplies the consumers' input weights by the gates."""

    def tensors(self, active: Active) -> dict[str, Tensor]:
        """Full-width gated parameters; copies of the statistics, because all of their entries move."""
        network = self.network
        parameters = {
            name: self.gate(name, tensor.detach(), active) for name, tensor in network.parameters.items()
        }
        statistics = network.statistics
        copies = torch._foreach_mul(list(statistics.values()), 1.0) if statistics else []
        return parameters | network.buffers | dict(zip(statistics, copies, strict=True))

    def pass_(
        self, active: Active, tensors: dict[str, Tensor], noise: Noise | None, *, update_stats: bool
    ) -> Pass:
        """The whole network."""
        return Pass(active=self.network.everything, tensors=tensors, noise=noise, update_stats=update_stats)

    def slopes(self, x: Inputs, y: Any, z: Tensor, noise: Noise) -> tuple[Evaluation, Tensor]:
        """A training pass at the gates `z` (G,) bool, and d loss / dz (G,) of all of them, the closed ones too."""
        network, active = self.network, self.network.active(z)
        loss, gradients = self.backward(x, y, active, noise, update_stats=True)
        whole = self.evaluation(loss, gradients, network.everything)
        slopes = gate_gradients(network, network.everything, whole.updates, z)
        if active.whole:
            return whole, slopes
        updates = [replace(u, part=network.taking_part(u.name, active)) for u in whole.updates]
        return replace(whole, updates=updates), slopes

    def gate(self, name: str, tensor: Tensor, active: Active) -> Tensor:
        """The tensor times the gates of the units that a layer reads along it."""
        for dim, axis in enumerate(self.network.dims[name]):
            if axis is not None and (name, dim) in self.network.coupling.readers and not active.whole:
                z = active.gates(tensor.device)[axis].to(tensor.dtype)
                tensor = tensor * z.view([-1 if d == dim else 1 for d in range(tensor.dim())])
        return tensor

    def cut(self, value: Tensor, indices: Indices) -> Tensor:
        """The active slice of a full-width gradient."""
        return take(value, indices)

    def store(self, tensors: dict[str, Tensor], active: Active) -> None:
        """Of the active units the statistics that the pass has moved, and count the batch."""
        network = self.network
        for name, own in network.statistics.items():
            part = network.taking_part(name, active)
            own.copy_(tensors[name]) if part is None else own.lerp_(tensors[name], part)
        for name, buffer in network.buffers.items():
            if name.endswith(BATCHES_TRACKED):
                buffer += 1


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
) -> GateStep:
    """Evaluate the loss at the samples of `u` (rows, G) and estimate its gradient: in phi it is k times that in a.

    The weights train at the first.  The others use BatchNorm in the same mode with its running statistics left
    alone, and the same dropout noise; what agrees with the first is not evaluated again.  At k = inf phi has no
    gradient, and at k = 0 no influence.
    """
    (x, y), network = batch, runner.network
    a = logits(gates.phi, k)
    b, *others = (sample & gates.awake for sample in estimator.samples(u, a))
    if estimator.gradient is None and looks and 0 < k < math.inf:
        evaluation, slopes = Masked(network, runner.loss).slopes(x, y, b, noise)
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
