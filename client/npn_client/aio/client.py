"""The client for asyncio.  What is sent and what is made of the answers is the blocking client's code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from npn_client import decode, encode
from npn_client._pb import pb
from npn_client.credentials import Tls
from npn_client.model import ArchitectureInfo, JobSnapshot, JobState, Plan, ServerInfo
from npn_client.spec import Architecture, Budget, Dataset, Expansion, ModelArchive, Resources, Training

from .calls import AsyncCalls
from .connection import AsyncConnection
from .job import AsyncJob

if TYPE_CHECKING:
    from npn_client.exporting import ExampleInputs, TorchModel


class AsyncClient:
    """A connection to one server, for one event loop; an async context manager.  Arguments as in `Client`."""

    def __init__(
        self,
        server: str = "localhost:50051",
        *,
        token: str | Path | None = None,
        tls: bool | str | Path | Tls = False,
        timeout: float = 30.0,
    ) -> None:
        self._calls = AsyncCalls(AsyncConnection(server, token=token, tls=tls, timeout=timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every call and release the connection; jobs go on."""
        await self._calls.connection.close()

    async def compress(
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
    ) -> AsyncJob:
        """Queue a compression and return its handle; as in `Client`."""
        request = encode.create_job_request(
            await self._calls.store_model(model, example_inputs),
            dataset=await self._calls.store(dataset),
            budget=budget,
            training=training,
            labels=labels,
            resources=resources,
            priority=priority,
            max_duration=max_duration,
            request_id=request_id,
        )
        return self._handle(decode.snapshot(await self._calls.create_job(request)))

    async def expand(
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
    ) -> AsyncJob:
        """Queue an expansion and return its handle; as in `Client`."""
        request = encode.create_job_request(
            await self._calls.store_model(model, example_inputs),
            dataset=await self._calls.store(dataset),
            budget=budget,
            training=training,
            expansion=Expansion(awake=awake or {}),
            labels=labels,
            resources=resources,
            priority=priority,
            max_duration=max_duration,
            request_id=request_id,
        )
        return self._handle(decode.snapshot(await self._calls.create_job(request)))

    async def plan(
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
        """What `compress`, or with an `expansion` `expand`, would come to.  Queues nothing."""
        request = encode.create_job_request(
            await self._calls.store_model(model, example_inputs),
            dataset=await self._calls.store(dataset),
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
        return decode.plan((await self._calls.create_job(request)).plan)

    async def get_job(self, job: str) -> AsyncJob:
        """A job by its name or ID.  Raises NotFound."""
        return self._handle(await self._calls.get_job(encode.job_name(job)))

    async def list_jobs(
        self,
        *,
        state: JobState | str | None = None,
        labels: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
    ) -> AsyncIterator[AsyncJob]:
        """Your jobs, newest first; pages are fetched as they are needed."""
        where = encode.list_filter(
            state=state, labels=labels, created_from=created_from, created_to=created_to
        )
        async for job in self._calls.pages("ListJobs", pb.ListJobsRequest(filter=where), "jobs"):
            yield self._handle(decode.snapshot(job))

    async def architectures(self) -> list[ArchitectureInfo]:
        """The catalogue."""
        pages = self._calls.pages("ListArchitectures", pb.ListArchitecturesRequest(), "architectures")
        return [decode.architecture(item) async for item in pages]

    async def server_info(self) -> ServerInfo:
        """Version, limits and features of the server."""
        answer = await self._calls.connection.call("GetServerInfo", pb.GetServerInfoRequest())
        return decode.server_info(answer)

    def _handle(self, snapshot: JobSnapshot) -> AsyncJob:
        return AsyncJob(snapshot, self._calls)
