"""The blocking calls that handles, submits and transfers are made of."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import decode, exporting, transfer
from ._pb import pb
from .connection import Connection
from .errors import ClientError
from .model import ArtifactFile, Event, JobLogs, JobSnapshot
from .retry import Resumption
from .spec import Architecture, Dataset, ModelArchive
from .watching import SILENCE, WatchCursor


class Calls:
    """The calls that handles and submits are made of (a `JobCalls`)."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def create_job(self, request: pb.CreateJobRequest) -> pb.Job:
        """Queue a job, or plan one."""
        job: pb.Job = self.connection.call("CreateJob", request)
        return job

    def get_job(self, name: str) -> JobSnapshot:
        """The job as it is now."""
        return decode.snapshot(self.connection.call("GetJob", pb.GetJobRequest(name=name)))

    def watch_job(self, name: str, timeout: float | None) -> Iterator[Event]:
        """The current state, then events until the job is done, over as many streams as it takes."""
        cursor = WatchCursor(name, timeout)
        while not cursor.done:
            failure = None
            try:
                for response in self.connection.stream(
                    "WatchJob", cursor.request(), timeout=cursor.stream_seconds(), silence=SILENCE
                ):
                    if (event := cursor.receive(response)) is not None:
                        yield event
                    if cursor.done:
                        return
            except ClientError as error:
                failure = error
            time.sleep(cursor.interrupted(failure))

    def cancel_job(self, name: str) -> JobSnapshot:
        """Ask the job to stop."""
        return decode.snapshot(self.connection.call("CancelJob", pb.CancelJobRequest(name=name)))

    def job_logs(self, name: str, attempt: int | None) -> JobLogs:
        """What is kept of an attempt, of the newest where none is named."""
        request = pb.GetJobLogsRequest(name=name, attempt=attempt or 0)
        return decode.job_logs(self.connection.call("GetJobLogs", request))

    def delete_job(self, name: str) -> None:
        """Remove the finished job."""
        self.connection.call("DeleteJob", pb.DeleteJobRequest(name=name))

    def pages(self, method: str, request: Any, items: str) -> Iterator[Any]:
        """The items of every page."""
        while True:
            page = self.connection.call(method, request)
            yield from getattr(page, items)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def store_model(
        self,
        model: str | Path | Architecture | ModelArchive | exporting.TorchModel,
        example_inputs: exporting.ExampleInputs | None,
    ) -> Architecture | ModelArchive:
        """The model by name or with a URI that the server can read; exports a module, uploads an archive."""
        with TemporaryDirectory(prefix="npn-") as folder:
            found = exporting.prepare(model, example_inputs, Path(folder))
            if isinstance(found, Architecture) or found.local_path is None:
                return found
            return ModelArchive(self._upload(found.local_path, "job.model.uri", folders=False))

    def store(self, dataset: str | Path | Dataset) -> Dataset:
        """The dataset with a URI that the server can read; uploads a local file or folder."""
        if not isinstance(dataset, Dataset):
            dataset = Dataset(dataset)
        if dataset.local_path is None:
            return dataset
        return Dataset(self._upload(dataset.local_path, "job.dataset.uri"), layout=dataset.layout)

    def _upload(self, source: Path, field: str, *, folders: bool = True) -> str:
        """Send a file or a folder, or what the server lacks of it; returns the object."""
        local = transfer.LocalObject.read(source, field, folders=folders)
        upload = local.unfinished(self.connection.call("ListUploads", pb.ListUploadsRequest()).uploads)
        if upload is None:
            upload = self.connection.call("CreateUpload", local.create_request(str(uuid.uuid4())))
        else:
            upload = self.connection.call("GetUpload", pb.GetUploadRequest(name=upload.name))
        if upload.state == pb.UPLOAD_STATE_OPEN:
            if transfer.goes_by_url(upload):
                self._send_parts(upload, local)
            else:
                for file in local.files:
                    self._send(upload, file)
            complete = pb.CompleteUploadRequest(name=upload.name)
            upload = self.connection.call(
                "CompleteUpload", complete, timeout=transfer.TIMEOUT
            )  # it hashes every byte
        return str(upload.object)

    def _send(self, upload: pb.Upload, file: transfer.LocalFile) -> None:
        committed = file.committed(upload)
        failure: ClientError | None = None
        resumption = Resumption(committed)
        while committed < file.size:
            try:
                if failure is not None:  # how far did it get?
                    upload = self.connection.call("GetUpload", pb.GetUploadRequest(name=upload.name))
                    committed, failure = file.committed(upload), None
                    continue
                requests = file.write_requests(upload, committed)
                answer = self.connection.call("WriteObject", requests, timeout=transfer.TIMEOUT)
                committed = answer.committed
            except ClientError as error:
                file.check_unchanged()
                failure = error
            if committed < file.size:
                time.sleep(resumption.after(committed, failure))

    def _send_parts(self, upload: pb.Upload, local: transfer.LocalObject) -> None:
        resumption = Resumption(local.committed(upload))
        while parts := local.missing_parts(upload):
            failure = self.connection.urls.send(parts, threading.Event())
            try:
                upload = self.connection.call("GetUpload", pb.GetUploadRequest(name=upload.name))
            except ClientError as error:
                failure = failure or error
            if local.missing_parts(upload):
                time.sleep(resumption.after(local.committed(upload), failure))

    def download(self, file: ArtifactFile, folder: Path) -> Path:
        """Fetch one file into a folder."""
        incoming = transfer.IncomingFile(file, folder)
        if incoming.is_there:
            return incoming.target
        resumption = Resumption(incoming.position)
        while not incoming.is_complete:
            failure = None
            try:
                for data in self._read(file, incoming.position):
                    incoming.write(data)
            except ClientError as error:
                failure = error
            if not incoming.is_complete:
                time.sleep(resumption.after(incoming.position, failure))
        return incoming.finish()

    def _read(self, file: ArtifactFile, offset: int) -> Iterator[bytes]:
        source = self.connection.call("GetDownload", pb.GetDownloadRequest(name=file.name))
        if source.WhichOneof("source") == "url":
            yield from self.connection.urls.fetch(source.url, offset, file.size, threading.Event())
            return
        request = pb.ReadObjectRequest(name=source.read_object, offset=offset)
        for part in self.connection.stream("ReadObject", request, timeout=transfer.TIMEOUT):
            yield part.data
