"""The RPCs on jobs."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
from google.protobuf.empty_pb2 import Empty

from npn.v1 import compression_pb2 as pb
from npn_core.errors import InvalidInput
from npn_service.access.identity import Identity, Scope
from npn_service.blocking import BlockingPool
from npn_service.errors import InvalidRequest, LimitExceeded, TooSlow, Unavailable
from npn_service.jobs.inputs import JobInputs
from npn_service.jobs.manager import JobManager
from npn_service.jobs.model import JobError, JobPlan, JobSpec
from npn_service.jobs.store import JobStore
from npn_service.storage.sources import Source
from npn_service.worker import failures
from npn_service.worker.fetching import Fetching
from npn_service.worker.inspector import Inspector
from npn_service.worker.messages import Inspection

from .access import require
from .decode import decode_name, decode_page_size, decode_request_id, decode_spec
from .encode import encode_event, encode_job, encode_log, encode_plan, encode_spec, encode_time
from .filters import parse_filter
from .watch import WatchHub

# What a job reads from S3 is fetched to be checked if that is quick; its worker fetches and checks the rest.
_FETCH_SECONDS: Final = 5.0
_FETCHES: Final = 8  # at a time

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobCalls:
    """What the RPCs on jobs do.  `wake` tells the dispatcher that there is something to do."""

    store: JobStore
    manager: JobManager
    inputs: JobInputs
    inspector: Inspector
    hub: WatchHub
    blocking: BlockingPool
    carrying: BlockingPool  # threads for what touches objects
    wake: Callable[[], None]
    max_epochs: int
    default_threads: int
    longest: float | None
    fetches: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_FETCHES))

    async def create(self, request: pb.CreateJobRequest, caller: Identity) -> pb.Job:
        """CreateJob."""
        if not request.HasField("job"):
            raise InvalidRequest("job", "no job is given")
        request_id = decode_request_id(request.request_id)
        asked = request.job.SerializeToString(deterministic=True)
        if request_id and not request.validate_only:
            earlier = await self.blocking.run(
                self.manager.earlier, owner=caller.owner, request_id=request_id, request=asked
            )
            if earlier is not None:
                return encode_job(earlier)
        spec = decode_spec(
            request.job,
            max_epochs=self.max_epochs,
            default_threads=self.default_threads,
            longest=self.longest,
        )
        if spec.priority > 0:
            require(caller, Scope.PRIORITY, "a priority above 0")
        if not request.validate_only:  # before its inputs are looked for
            await self.blocking.run(self.store.require_place_in_queue, owner=caller.owner)
        sources = await self.carrying.run(
            self.inputs.find, owner=caller.owner, spec=spec, read_prefixes=caller.read_prefixes
        )
        plan = await self._plan(spec, sources, caller.owner)
        if request.validate_only:
            if plan is None:
                raise TooSlow("the job could not be checked in time; create it, and its worker checks it")
            checked = encode_spec(spec)
            checked.plan.CopyFrom(encode_plan(plan))
            return checked
        job = await self.blocking.run(
            self.manager.submit,
            owner=caller.owner,
            creator=caller.subject,
            spec=spec,
            sources=sources,
            plan=plan,
            request_id=request_id,
            request=asked,
        )
        _log.info("job.created", job=job.name, model=spec.model.label, planned=plan is not None)
        self.wake()
        return encode_job(job)

    async def _plan(
        self, spec: JobSpec, sources: Mapping[str, Sequence[Source]], owner: str
    ) -> JobPlan | None:
        """What the job comes to, or None where that takes too long; raises what is wrong with it."""
        hold = partial(self.inputs.hold, owner=owner, spec=spec, sources=sources)
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(_FETCH_SECONDS), self.fetches:
                    fetching = Fetching(lambda stop: hold(stop=stop))
                    held.push_async_callback(self.blocking.run, fetching.close)
                    inputs = await asyncio.wrap_future(fetching.inputs)
            except (TimeoutError, Unavailable) as error:
                _log.info("job.not_fetched", error=str(error))
                return None
            return await self._inspect(Inspection(spec=spec, dataset=inputs.dataset, model=inputs.model))

    async def _inspect(self, asked: Inspection) -> JobPlan | None:
        inspected = await self.inspector.inspect(asked)
        if inspected is None:
            return None
        if inspected.plan is not None:
            return inspected.plan
        match inspected.error:
            case JobError(code=failures.INVALID_ARGUMENT) as error:
                raise InvalidInput(error.field, error.message, reason=error.reason)
            case JobError(code=failures.RESOURCE_EXHAUSTED) as error:
                raise LimitExceeded(error.message, reason=error.reason)
            case error:
                raise RuntimeError(f"the inspection failed: {error}")

    def get(self, request: pb.GetJobRequest, caller: Identity) -> pb.Job:
        """GetJob."""
        job_id = decode_name(request.name, "jobs")
        return encode_job(self.store.get_job(owner=caller.reach, job_id=job_id))

    def logs(self, request: pb.GetJobLogsRequest, caller: Identity) -> pb.JobLogs:
        """GetJobLogs."""
        job_id = decode_name(request.name, "jobs")
        if request.attempt < 0:
            raise InvalidRequest(
                "attempt", f"attempt is {request.attempt}; it counts from 1, 0 is the newest"
            )
        log = self.store.get_log(owner=caller.reach, job_id=job_id, attempt=request.attempt or None)
        return encode_log(log)

    def list(self, request: pb.ListJobsRequest, caller: Identity) -> pb.ListJobsResponse:
        """ListJobs."""
        jobs, token = self.store.list_jobs(
            owner=caller.reach,
            where=parse_filter(request.filter),
            page_size=decode_page_size(request.page_size),
            page_token=request.page_token,
        )
        return pb.ListJobsResponse(jobs=[encode_job(job) for job in jobs], next_page_token=token)

    async def watch(
        self, request: pb.WatchJobRequest, caller: Identity
    ) -> AsyncGenerator[pb.WatchJobResponse, None]:
        """WatchJob."""
        job_id = decode_name(request.name, "jobs")
        after = request.after_sequence if request.HasField("after_sequence") else None
        if after is not None and after < 0:
            raise InvalidRequest("after_sequence", f"after_sequence is {after}; it must not be negative")
        seen = after or 0
        async with aclosing(self.hub.watch(owner=caller.reach, job_id=job_id, after=after)) as events:
            async for event in events:
                if event is None:
                    now = encode_time(datetime.now(UTC))
                    yield pb.WatchJobResponse(sequence=seen, time=now, heartbeat=pb.Heartbeat())
                else:
                    seen = event.sequence
                    yield encode_event(event)

    def cancel(self, request: pb.CancelJobRequest, caller: Identity) -> pb.Job:
        """CancelJob."""
        job_id = decode_name(request.name, "jobs")
        job = self.store.cancel_job(owner=caller.reach, job_id=job_id)
        _log.info("job.cancel_asked", state=job.state.name)
        self.wake()
        return encode_job(job)

    def delete(self, request: pb.DeleteJobRequest, caller: Identity) -> Empty:
        """DeleteJob."""
        job_id = decode_name(request.name, "jobs")
        self.manager.delete(owner=caller.reach, job_id=job_id)
        _log.info("job.deleted")
        return Empty()
