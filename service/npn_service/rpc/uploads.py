"""The RPCs on uploads and on the bytes of artifacts."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial

import structlog
from google.protobuf.empty_pb2 import Empty

from npn.v1 import compression_pb2 as pb
from npn_service.access.identity import Identity
from npn_service.blocking import BlockingPool
from npn_service.errors import InvalidRequest
from npn_service.jobs.manager import JobManager
from npn_service.jobs.model import Upload
from npn_service.jobs.store import JobStore
from npn_service.jobs.uploads import UploadManager
from npn_service.storage.store import ObjectStore

from .decode import decode_artifact_name, decode_files, decode_name, decode_page_size, decode_request_id
from .encode import encode_download, encode_upload

CHUNK_BYTES = 1 << 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadCalls:
    """What the RPCs on uploads and artifacts do."""

    store: JobStore
    objects: ObjectStore
    jobs: JobManager
    uploads: UploadManager
    blocking: BlockingPool
    max_message_bytes: int

    def create(self, request: pb.CreateUploadRequest, caller: Identity) -> pb.Upload:
        """CreateUpload."""
        upload = self.uploads.create(
            owner=caller.owner,
            files=decode_files(request.files),
            request_id=decode_request_id(request.request_id),
        )
        _log.info("upload.created", upload=upload.name, state=upload.state.name)
        return self._encode(upload)

    def get(self, request: pb.GetUploadRequest, caller: Identity) -> pb.Upload:
        """GetUpload."""
        upload_id = decode_name(request.name, "uploads")
        return self._encode(self.store.get_upload(owner=caller.owner, upload_id=upload_id))

    def complete(self, request: pb.CompleteUploadRequest, caller: Identity) -> pb.Upload:
        """CompleteUpload."""
        upload_id = decode_name(request.name, "uploads")
        upload = self.uploads.complete(owner=caller.owner, upload_id=upload_id)
        _log.info("upload.completed", upload=upload.name)
        return self._encode(upload)

    def list(self, request: pb.ListUploadsRequest, caller: Identity) -> pb.ListUploadsResponse:
        """ListUploads."""
        uploads, token = self.store.list_uploads(
            owner=caller.owner, page_size=decode_page_size(request.page_size), page_token=request.page_token
        )
        # What has arrived of each of them would be a call or more to S3 for every file.
        messages = [encode_upload(upload, {}, max_chunk_bytes=0) for upload in uploads]
        return pb.ListUploadsResponse(uploads=messages, next_page_token=token)

    def delete(self, request: pb.DeleteUploadRequest, caller: Identity) -> Empty:
        """DeleteUpload."""
        upload_id = decode_name(request.name, "uploads")
        self.uploads.delete(owner=caller.owner, upload_id=upload_id)
        _log.info("upload.deleted", upload=request.name)
        return Empty()

    async def write(
        self, requests: AsyncIterator[pb.WriteObjectRequest], caller: Identity
    ) -> pb.WriteObjectResponse:
        """WriteObject: what arrived before a stream breaks off stays committed."""
        upload_id, path, committed = "", "", -1
        async for request in requests:
            if committed < 0:
                upload_id = decode_name(request.upload, "uploads", field="upload")
                path, committed = request.path, request.offset
                if committed < 0:
                    raise InvalidRequest("offset", f"offset is {committed}; it must not be negative")
            elif request.upload or request.path or request.offset:
                raise InvalidRequest("upload", "upload, path and offset belong to the first message alone")
            committed = await self.blocking.run(
                self.uploads.append,
                owner=caller.owner,
                upload_id=upload_id,
                path=path,
                offset=committed,
                data=request.data,
            )
        if committed < 0:
            raise InvalidRequest("upload", "the stream has no message")
        return pb.WriteObjectResponse(committed=committed)

    def download(self, request: pb.GetDownloadRequest, caller: Identity) -> pb.Download:
        """GetDownload."""
        job_id, path = decode_artifact_name(request.name)
        key, file = self.jobs.artifact_file(owner=caller.reach, job_id=job_id, path=path)
        return encode_download(file, self.objects.download_link(key), read_object=request.name)

    async def read(
        self, request: pb.ReadObjectRequest, caller: Identity
    ) -> AsyncGenerator[pb.ReadObjectResponse, None]:
        """ReadObject."""
        job_id, path = decode_artifact_name(request.name)
        key, file = await self.blocking.run(
            self.jobs.artifact_file, owner=caller.reach, job_id=job_id, path=path
        )
        if not 0 <= request.offset <= file.size:
            raise InvalidRequest(
                "offset",
                f"offset is {request.offset}; it must lie between 0 and {file.size}, the file's size",
            )
        read = partial(self.objects.read, key, offset=request.offset, chunk_bytes=CHUNK_BYTES)
        chunks = await self.blocking.run(read)  # S3 is asked what is there before a byte comes
        while data := await self.blocking.run(next, chunks, b""):
            yield pb.ReadObjectResponse(data=data)

    def _encode(self, upload: Upload) -> pb.Upload:
        incoming = self.uploads.incoming(upload)
        return encode_upload(upload, incoming, max_chunk_bytes=min(CHUNK_BYTES, self.max_message_bytes // 2))
