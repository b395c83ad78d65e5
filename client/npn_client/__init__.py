"""Thin client of the NPN compression service: needs neither torch nor the server's code.

from npn_client import Budget, Client, Training

with Client("localhost:50051") as client:
    job = client.compress(
        "lenet5-caffe", dataset="mnist.npz", budget=Budget(max_params=10_000), training=Training(epochs=20)
    )
    for event in job.watch():
        print(event)
    job.result().download("out/")
"""

from .aio import AsyncClient, AsyncJob, AsyncResult
from .client import Client
from .credentials import Tls
from .errors import (
    AlreadyExists,
    Cancelled,
    ClientError,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    JobCancelled,
    JobFailed,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    TransferFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from .job import Job, Result
from .model import (
    ArchitectureInfo,
    ArchitectureParam,
    ArtifactFile,
    Cost,
    CostProgress,
    DatasetInfo,
    DatasetInput,
    Event,
    GroupPlan,
    GroupProgress,
    JobError,
    JobLogs,
    JobSnapshot,
    JobState,
    Metric,
    Outcome,
    Plan,
    Progress,
    Progressed,
    ServerInfo,
    Stage,
    StateChanged,
    Unpruned,
)
from .spec import (
    Architecture,
    Budget,
    Dataset,
    Expansion,
    KSchedule,
    ModelArchive,
    Preprocessing,
    Resources,
    Training,
)

__all__ = [
    "AlreadyExists",
    "Architecture",
    "ArchitectureInfo",
    "ArchitectureParam",
    "ArtifactFile",
    "AsyncClient",
    "AsyncJob",
    "AsyncResult",
    "Budget",
    "Cancelled",
    "Client",
    "ClientError",
    "Cost",
    "CostProgress",
    "Dataset",
    "DatasetInfo",
    "DatasetInput",
    "DeadlineExceeded",
    "Event",
    "Expansion",
    "FailedPrecondition",
    "GroupPlan",
    "GroupProgress",
    "InternalError",
    "InvalidArgument",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobLogs",
    "JobSnapshot",
    "JobState",
    "KSchedule",
    "Metric",
    "ModelArchive",
    "NotFound",
    "OutOfRange",
    "Outcome",
    "PermissionDenied",
    "Plan",
    "Preprocessing",
    "Progress",
    "Progressed",
    "ResourceExhausted",
    "Resources",
    "Result",
    "ServerInfo",
    "Stage",
    "StateChanged",
    "Tls",
    "Training",
    "TransferFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unpruned",
    "Violation",
]
