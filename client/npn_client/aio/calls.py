"""The asyncio calls that handles, submits and transfers are made of: calls.py with every wait awaited."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from npn_client import decode, exporting, transfer
from npn_client._pb import pb
from npn_client.errors import ClientError
from npn_client.model import ArtifactFile, Event, JobLogs, JobSnapshot
from npn_client.retry import Resumption
from npn_client.spec import Architecture, Dataset, ModelArchive
from npn_client.watching import SILENCE, WatchCursor

from .connection import AsyncConnection

R = TypeVar("R")


class AsyncCalls:
    """The calls that handles and submits are made of (an `AsyncJobCalls`)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def create_job(self, request: pb.CreateJobRequest) -> pb.Job:
        """Queue a job, or plan one."""
        job: pb.Job = await self.connection.call("CreateJob", request)
        return job

    async def get_job(self, name: str) -> JobSnapshot:
        """The job as it is now."""
        return decode.snapshot(await self.connection.call("GetJob", pb.GetJobRequest(name=name)))

    async def cancel_job(self, name: str) -> JobSnapshot:
        """Ask the job to stop."""
        return decode.snapshot(await self.connection.call("CancelJob", pb.CancelJobRequest(name=name)))

    async def job_logs(self, name: str, attempt: int | None) -> JobLogs:
        """What is kept of an attempt, of the newest where none is named."""
        request = pb.GetJobLogsRequest(name=name, attempt=attempt or 0)
        return decode.job_logs(await self.connection.call("GetJobLogs", request))

    async def delete_job(self, name: str) -> None:
        """Remove the finished job."""
        await self.connection.call("DeleteJob", pb.DeleteJobRequest(name=name))

    async def watch_job(self, name: str, timeout: float | None) -> AsyncGenerator[Event, None]:
        """The current state, then events until the job is done, over as many streams as it takes."""
        cursor = WatchCursor(name, timeout)
        while not cursor.done:
            failure = None
            stream = self.connection.stream(
                "WatchJob", cursor.request(), timeout=cursor.stream_seconds(), silence=SILENCE
            )
            try:
                async with aclosing(stream):
                    async for response in stream:
                        if (event := cursor.receive(response)) is not None:
                            yield event
                        if cursor.done:
                            return
            except ClientError as error:
                failure = error
            await asyncio.sleep(cursor.interrupted(failure))

    async def pages(self, method: str, request: Any, items: str) -> AsyncIterator[Any]:
        """The items of every page."""
        while True:
            page = await self.connection.call(method, request)
            for item in getattr(page, items):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def store_model(
        self,
        model: str | Path | Architecture | ModelArchive | exporting.TorchModel,
        example_inputs: exporting.ExampleInputs | None,
    ) -> Architecture | ModelArchive:
        """The model by name or with a URI that the server can read; exports a module, uploads an archive."""
        with TemporaryDirectory(prefix="npn-") as folder:
            found = await asyncio.to_thread(exporting.prepare, model, example_inputs, Path(folder))
            if isinstance(found, Architecture) or found.local_path is None:
                return found
            return ModelArchive(await self._upload(found.local_path, "job.model.uri", folders=False))

    async def store(self, dataset: str | Path | Dataset) -> Dataset:
        """The dataset with a URI that the server can read; uploads a local file or folder."""
        if not isinstance(dataset, Dataset):
            dataset = Dataset(dataset)
        if dataset.local_path is None:
            return dataset
        return Dataset(await self._upload(dataset.local_path, "job.dataset.uri"), layout=dataset.layout)

    async def _upload(self, source: Path, field: str, *, folders: bool = True) -> str:
        """Send a file or a folder, or what the server lacks of it; returns the object."""
        call = self.connection.call
        local = await asyncio.to_thread(transfer.LocalObject.read, source, field, folders=folders)
        upload = local.unfinished((await call("ListUploads", pb.ListUploadsRequest())).uploads)
        if upload is None:
            upload = await call("CreateUpload", local.create_request(str(uuid.uuid4())))
        else:
            upload = await call("GetUpload", pb.GetUploadRequest(name=upload.name))
        if upload.state == pb.UPLOAD_STATE_OPEN:
            if transfer.goes_by_url(upload):
                await self._send_parts(upload, local)
            else:
                for file in local.files:
                    await self._send(upload, file)
            complete = pb.CompleteUploadRequest(name=upload.name)
            upload = await call("CompleteUpload", complete, timeout=transfer.TIMEOUT)  # it hashes every byte
        return str(upload.object)

    async def _send(self, upload: pb.Upload, file: transfer.LocalFile) -> None:
        call = self.connection.call
        committed = file.committed(upload)
        failure: ClientError | None = None
        resumption = Resumption(committed)
        while committed < file.size:
            try:
                if failure is not None:  # how far did it get?
                    upload = await call("GetUpload", pb.GetUploadRequest(name=upload.name))
                    committed, failure = file.committed(upload), None
                    continue
                requests = file.write_requests(upload, committed)
                answer = await call("WriteObject", requests, timeout=transfer.TIMEOUT)
                committed = answer.committed
            except ClientError as error:
                file.check_unchanged()
                failure = error
            if committed < file.size:
                await asyncio.sleep(resumption.after(committed, failure))

    async def _send_parts(self, upload: pb.Upload, local: transfer.LocalObject) -> None:
        resumption = Resumption(local.committed(upload))
        while parts := local.missing_parts(upload):
            failure = await _in_thread(self.connection.urls.send, parts)
            try:
                upload = await self.connection.call("GetUpload", pb.GetUploadRequest(name=upload.name))
            except ClientError as error:
                failure = failure or error
            if local.missing_parts(upload):
                await asyncio.sleep(resumption.after(local.committed(upload), failure))

    async def download(self, file: ArtifactFile, folder: Path) -> Path:
        """Fetch one file into a folder."""
        incoming = transfer.IncomingFile(file, folder)
        if incoming.is_there:
            return incoming.target
        resumption = Resumption(incoming.position)
        while not incoming.is_complete:
            failure = None
            try:
                await self._receive(file, incoming)
            except ClientError as error:
                failure = error
            if not incoming.is_complete:
                await asyncio.sleep(resumption.after(incoming.position, failure))
        return await asyncio.to_thread(incoming.finish)

    async def _receive(self, file: ArtifactFile, incoming: transfer.IncomingFile) -> None:
        source = await self.connection.call("GetDownload", pb.GetDownloadRequest(name=file.name))
        if source.WhichOneof("source") == "url":
            fetch = self.connection.urls.fetch

            def receive(stop: threading.Event) -> None:
                for data in fetch(source.url, incoming.position, file.size, stop):
                    incoming.write(data)

            await _in_thread(receive)
            return
        request = pb.ReadObjectRequest(name=source.read_object, offset=incoming.position)
        async for part in self.connection.stream("ReadObject", request, timeout=transfer.TIMEOUT):
            incoming.write(part.data)


async def _in_thread(transfer: Callable[..., R], *args: Any) -> R:
    """Run a blocking transfer beside the loop; a task that is cancelled gives it up."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(transfer, *args, stop)
    finally:
        stop.set()
