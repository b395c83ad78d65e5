"""The generated code of npn.v1 and the protobuf messages it is built of.  No other module imports them."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from npn.v1 import compression_pb2 as pb
from npn.v1.compression_pb2_grpc import CompressionServiceStub

SERVICE = pb.DESCRIPTOR.services_by_name["CompressionService"]

__all__ = [
    "SERVICE",
    "BadRequest",
    "CompressionServiceStub",
    "Duration",
    "ErrorInfo",
    "Message",
    "Status",
    "Timestamp",
    "pb",
]
