"""What the network says on the validation split."""

from collections.abc import Iterator
from typing import Any

from .data import Data
from .distillation import Teacher
from .gated import Network
from .groups import Active
from .objective import Objective, Outputs, named
from .progress import Metric


def validate(
    network: Network, active: Active, data: Data, objective: Objective, teacher: Teacher | None
) -> tuple[Metric, ...]:
    """The metrics of the network with the units `active`; without labels against what the `teacher` says."""

    def answers() -> Iterator[tuple[Outputs, Any]]:
        for batch in data.validation_batches():
            outputs = network.evaluate(batch.x, active)
            yield outputs, teacher.ask(batch) if objective.kind == "distill" and teacher else batch.y

    return named("validation", objective.measure(answers()))
