"""The gRPC server: the service, health and reflection on one port."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from npn.v1 import compression_pb2 as pb
from npn_core.config import ESTIMATORS
from npn_service.access.certificates import Certificates
from npn_service.access.identity import Identity
from npn_service.blocking import BlockingPool
from npn_service.errors import StartupError
from npn_service.settings import Settings

from .calls import Behaviour, bind_service
from .catalogue import list_architectures
from .encode import encode_seconds
from .gate import Gate
from .jobs import JobCalls
from .transport import server_options
from .uploads import UploadCalls

SERVICE = pb.DESCRIPTOR.services_by_name["CompressionService"]

FEATURES = (
    "budget.max_bytes",
    "budget.max_macs",
    "budget.max_params",
    "dataset.npz",
    "dataset.parquet",
    "dataset.safetensors",
    "expand",
    "download.read_object",
    "job.logs",
    "model.architecture",
    "model.uri",
    "resources",
    "task.compress",
)

S3_FEATURES = ("dataset.s3", "model.s3")

# Finished calls get this long to be written out; those that still run are cancelled then.
_GRACE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoCalls:
    """What GetServerInfo does."""

    settings: Settings

    def get(self, request: pb.GetServerInfoRequest, caller: Identity) -> pb.ServerInfo:
        """GetServerInfo."""
        del request, caller  # the same for all
        return pb.ServerInfo(
            version=version("npn-compression"),
            limits=pb.Limits(
                max_message_bytes=self.settings.max_message_bytes,
                max_upload_bytes=self.settings.max_upload_bytes,
                max_files_per_upload=self.settings.max_files_per_upload,
                max_epochs=self.settings.max_epochs,
                max_running_jobs=self.settings.max_running_jobs_per_owner,
                max_queued_jobs=self.settings.max_queued_jobs_per_owner,
                max_stored_bytes=self.settings.max_bytes_per_owner,
                max_job_duration=encode_seconds(self.settings.max_job_duration or None),
                job_retention=encode_seconds(self.settings.job_retention or None),
            ),
            features=sorted((*FEATURES, *self._transfers, *(S3_FEATURES if self.settings.s3 else ()))),
            estimators=ESTIMATORS,
        )

    @property
    def _transfers(self) -> tuple[str, ...]:
        return ("upload.write_object",) if self.settings.s3 is None else ("download.url", "upload.parts")


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # the package has no types
    """Server reflection for those whom the gate lets in."""

    def __init__(self, names: Iterable[str], gate: Gate) -> None:
        super().__init__(names)
        self._gate = gate

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answer questions about the interface."""
        async with self._gate.admit("ServerReflectionInfo", context):
            async for answer in super().ServerReflectionInfo(requests, context):
                yield answer


def behaviours(*, jobs: JobCalls, uploads: UploadCalls, info: InfoCalls) -> Mapping[str, Behaviour]:
    """What answers each RPC of the interface, by the method's name."""

    def carried(call: Behaviour) -> Behaviour:
        """A call that touches objects, in the threads for those: the others go on while S3 is slow or away."""

        async def run(request: Any, caller: Identity) -> Any:
            return await uploads.blocking.run(call, request, caller)

        return run

    return {
        "CreateJob": jobs.create,
        "GetJob": jobs.get,
        "GetJobLogs": jobs.logs,
        "ListJobs": jobs.list,
        "WatchJob": jobs.watch,
        "CancelJob": jobs.cancel,
        "DeleteJob": carried(jobs.delete),
        "ListArchitectures": list_architectures,
        "GetServerInfo": info.get,
        "CreateUpload": carried(uploads.create),
        "GetUpload": carried(uploads.get),
        "CompleteUpload": carried(uploads.complete),
        "ListUploads": uploads.list,
        "DeleteUpload": carried(uploads.delete),
        "GetDownload": carried(uploads.download),
        "ReadObject": uploads.read,
        "WriteObject": uploads.write,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    """The interface that is served at `address`, "host:port"; `ended` is done when it is not served any more."""

    address: str
    ended: asyncio.Future[Any]


@asynccontextmanager
async def listen(
    settings: Settings,
    calls: Mapping[str, Behaviour],
    blocking: BlockingPool,
    gate: Gate,
    certificates: Certificates | None,
) -> AsyncIterator[Listening]:
    """Listen at `settings.listen` until the block ends, on the port that was taken.

    Health is answered to everybody; the service and reflection to those whom the gate lets in.

    Raises StartupError when the address cannot be had.
    """
    server = aio.server(options=server_options(settings))
    server.add_generic_rpc_handlers((bind_service(SERVICE, calls, blocking, gate),))
    serving = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(names, gate), server)
    try:
        port = (
            server.add_insecure_port(settings.listen)
            if certificates is None
            else server.add_secure_port(settings.listen, certificates.credentials())
        )
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {settings.listen}: {error}") from error
    for name in ("", SERVICE.full_name):
        await serving.set(name, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    ended = asyncio.ensure_future(server.wait_for_termination())
    try:
        yield Listening(address=f"{settings.listen.rpartition(':')[0]}:{port}", ended=ended)
    finally:
        await serving.enter_graceful_shutdown()  # health checks hear NOT_SERVING
        await server.stop(_GRACE_SECONDS)
        await ended
