"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from . import decode, encode
from ._pb import pb
from .calls import Calls
from .connection import Connection
from .credentials import Tls
from .job import Job
from .model import ArchitectureInfo, JobSnapshot, JobState, Plan, ServerInfo
from .spec import Architecture, Budget, Dataset, Expansion, ModelArchive, Resources, Training

if TYPE_CHECKING:
    from .exporting import ExampleInputs, TorchModel


class Client:
    """A connection to one server.  Thread-safe; a context manager.

    `token` goes with every call; a Path is a file with it, read again for each.  `tls` is True for the system's
    authorities, the path of a PEM file with others, or a `Tls`.  Raises InvalidArgument where a token would go
    over a network in plain text.
    `timeout` is the deadline of each call in seconds, its retries included, but not of transfers and watches.
    """

    def __init__(
        self,
        server: str = "localhost:50051",
        *,
        token: str | Path | None = None,
        tls: bool | str | Path | Tls = False,
        timeout: float = 30.0,
    ) -> None:
        self._calls = Calls(Connection(server, token=token, tls=tls, timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every call and release the connection; jobs go on."""
        self._calls.connection.close()

    def compress(
        self,
        model: str | Path | Architecture | ModelArchive | TorchModel,
        *,
        dataset: str | Path | Dataset,
        budget: Budget,
        example_inputs: ExampleInputs | None = None,
        training: Training | None = None,
        labels: Mapping[str, str] | None = None,
        resources: Resources | None = None,
        priority: int = 0,
        max_duration: float | timedelta | None = None,
        request_id: str | None = None,
    ) -> Job:
        """Queue a compression and return its handle.

        `model` is a network of the catalogue by name, or one of your own: a local `.pt2` file that torch.export
        wrote, "s3://bucket/key", "objects/ID", an ExportedProgram, or an `nn.Module`, which is exported here in
        training mode, for any batch size, from `example_inputs` (a tensor, a tuple of them, or a dict by name).
        Local files and folders are uploaded first, unless the server has their bytes already.  `max_duration`
        is in seconds.  The same `request_id` (a UUID, made when absent) gives the same job.
        Raises InvalidArgument with the wrong field, AlreadyExists for a request_id of another request.
        """
        request = encode.create_job_request(
            self._calls.store_model(model, example_inputs),
            dataset=self._calls.store(dataset),
            budget=budget,
            training=training,
            labels=labels,
            resources=resources,
            priority=priority,
            max_duration=max_duration,
            request_id=request_id,
        )
        return self._handle(decode.snapshot(self._calls.create_job(request)))

    def expand(
        self,
        model: str | Path | Architecture | ModelArchive | TorchModel,
        *,
        dataset: str | Path | Dataset,
        budget: Budget,
        awake: Mapping[str, int] | None = None,
        example_inputs: ExampleInputs | None = None,
        training: Training | None = None,
        labels: Mapping[str, str] | None = None,
        resources: Resources | None = None,
        priority: int = 0,
        max_duration: float | timedelta | None = None,
        request_id: str | None = None,
    ) -> Job:
        """Queue an expansion and return its handle: the network grows to what the data ask for, at most the budget.

        It begins with the units that are `awake`, by group ("conv1", "fc1"; "fc1.in" for the features that fc1
        reads), and all of the groups that are not named.  Everything else is as in `compress`.
        """
        request = encode.create_job_request(
            self._calls.store_model(model, example_inputs),
            dataset=self._calls.store(dataset),
            budget=budget,
            training=training,
            expansion=Expansion(awake=awake or {}),
            labels=labels,
            resources=resources,
            priority=priority,
            max_duration=max_duration,
            request_id=request_id,
        )
        return self._handle(decode.snapshot(self._calls.create_job(request)))

    def plan(
        self,
        model: str | Path | Architecture | ModelArchive | TorchModel,
        *,
        dataset: str | Path | Dataset,
        budget: Budget,
        example_inputs: ExampleInputs | None = None,
        training: Training | None = None,
        expansion: Expansion | None = None,
        labels: Mapping[str, str] | None = None,
        resources: Resources | None = None,
        priority: int = 0,
        max_duration: float | timedelta | None = None,
        request_id: str | None = None,
    ) -> Plan:
        """What `compress`, or with an `expansion` `expand`, would come to: dense cost, feasible range, warnings.

        Queues nothing.
        """
        request = encode.create_job_request(
            self._calls.store_model(model, example_inputs),
            dataset=self._calls.store(dataset),
            budget=budget,
            training=training,
            expansion=expansion,
            labels=labels,
            resources=resources,
            priority=priority,
            max_duration=max_duration,
            request_id=request_id,
            validate_only=True,
        )
        return decode.plan(self._calls.create_job(request).plan)

    def get_job(self, job: str) -> Job:
        """A job by its name or ID.  Raises NotFound."""
        return self._handle(self._calls.get_job(encode.job_name(job)))

    def list_jobs(
        self,
        *,
        state: JobState | str | None = None,
        labels: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
    ) -> Iterator[Job]:
        """Your jobs, newest first; pages are fetched as they are needed."""
        where = encode.list_filter(
            state=state, labels=labels, created_from=created_from, created_to=created_to
        )
        for job in self._calls.pages("ListJobs", pb.ListJobsRequest(filter=where), "jobs"):
            yield self._handle(decode.snapshot(job))

    def architectures(self) -> list[ArchitectureInfo]:
        """The catalogue."""
        pages = self._calls.pages("ListArchitectures", pb.ListArchitecturesRequest(), "architectures")
        return [decode.architecture(item) for item in pages]

    def server_info(self) -> ServerInfo:
        """Version, limits and features of the server."""
        return decode.server_info(self._calls.connection.call("GetServerInfo", pb.GetServerInfoRequest()))

    def _handle(self, snapshot: JobSnapshot) -> Job:
        return Job(snapshot, self._calls)
