"""What a job comes to, by its inputs on this host.  Importing this imports torch."""

from collections.abc import Callable

from npn_core import pipeline
from npn_core.data import inspect_dataset
from npn_service.jobs.model import JobPlan, ModelRef

from .messages import Inputs


def plan_of(inputs: Inputs, reading: Callable[[str], None]) -> JobPlan:
    """What headers, labels and the graph tell.

    `reading` is told the job's field of each input before that is touched.  Raises as `pipeline.plan` does.
    """
    spec = inputs.spec
    reading("dataset.uri")
    dataset = inspect_dataset(inputs.dataset, layout=spec.dataset.layout)
    reading("model.uri" if isinstance(spec.model, ModelRef) else "model.architecture.params")
    plan = pipeline.plan(inputs.core_model, dataset, spec.budget, spec.training, spec.expansion)
    return JobPlan(plan=plan, dataset=dataset)
