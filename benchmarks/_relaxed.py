"""The two estimators that are no choice of a job, as trainers: they compute the whole network in every step.

Straight-through in phi (Bengio, Leonard & Courville, arXiv:1308.3432) moves phi by k pi (1 - pi)
times the slope, in every step.
A hard concrete gate (Louizos, Welling & Kingma, arXiv:1712.01312) is often between 0 and 1, so that the loss is not
that of any network which could be returned.
"""

import math
from typing import Any

import torch
from torch import Tensor

from npn_core.data import Batch
from npn_core.gated import Network, Noise
from npn_core.gates import logits
from npn_core.groups import Active
from npn_core.saliency import gate_gradients
from npn_core.step import Evaluation, GateStep, Inputs, Loss, Masked
from npn_core.train import Trainer

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def hard_concrete(u: Tensor, a: Tensor) -> Tensor:
    """z in [0, 1]; its location is shifted so that P(z > 0) = sigmoid(a), as the cost model has it."""
    location = a + BETA * math.log(-GAMMA / ZETA)
    s = torch.sigmoid((torch.logit(u) + location) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def straight_through(u: Tensor, a: Tensor) -> Tensor:
    """z = 1[u < pi], with the derivative of pi."""
    pi = torch.sigmoid(a)
    return (u < pi) + pi - pi.detach()


class Relaxed(Masked):
    """Multiplies the consumers' weights by gates of any value."""

    def __init__(self, network: Network, loss: Loss, z: Tensor) -> None:
        super().__init__(network, loss)
        self.z = z

    def relaxed_slopes(self, x: Inputs, y: Any, noise: Noise) -> tuple[Evaluation, Tensor]:
        """A training pass, with the gradients of the weights before they are gated, and the loss's slopes in z."""
        network = self.network
        active = network.active(self.z > 0)
        loss, gradients = self.backward(x, y, active, noise, update_stats=True)
        whole = self.evaluation(loss, gradients, network.everything)
        slopes = gate_gradients(network, network.everything, whole.updates, self.z)
        own = {name: self.gate(name, gradient, active) for name, gradient in gradients.items()}
        return self.evaluation(loss, own, active), slopes

    def gate(self, name: str, tensor: Tensor, active: Active) -> Tensor:
        """The tensor times the gates of the units that a layer reads along it, and of those that they lie in."""
        coupling = self.network.coupling
        own = torch.cat([self.z, torch.ones(1, dtype=self.z.dtype)])  # FIXED is the last
        for dim, axis in enumerate(self.network.dims[name]):
            if axis is not None and (name, dim) in coupling.readers:
                units = coupling.axes[axis]
                parents = coupling.parents_of(units)
                z = (own[units] * own[parents]).to(tensor.dtype)
                tensor = tensor * z.view([-1 if d == dim else 1 for d in range(tensor.dim())])
        return tensor


class RelaxedTrainer(Trainer):
    """Differentiates through `relax`, a function of u and a that gives z."""

    relax = staticmethod(straight_through)

    def sampled_step(self, batch: Batch, *, looks: bool = True) -> GateStep:
        """The weights train at z; phi follows dz/dphi."""
        state = self.state
        u = torch.rand(len(state.gates.phi), generator=state.generators.gates, dtype=torch.float64)
        phi = state.gates.phi.clone().requires_grad_()
        z = self.relax(u, logits(phi, state.k))
        runner = Relaxed(self.network, self.runner.loss, z.detach())
        evaluation, slopes = runner.relaxed_slopes(batch.x, self.target(batch), self.noise())
        (gradient,) = torch.autograd.grad(z, phi, slopes)
        return GateStep(evaluation=evaluation, gradient=gradient)


class HardConcreteTrainer(RelaxedTrainer):
    """The same with hard concrete gates."""

    relax = staticmethod(hard_concrete)
