"""The exception tree and its table."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from npn_client import errors
from npn_client.status import EXCEPTIONS, details_of

LOCAL = {errors.TransferFailed, errors.JobFailed, errors.JobCancelled}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_an_exception(code: grpc.StatusCode) -> None:
    """No status that a server can answer is left out."""
    assert issubclass(EXCEPTIONS[code], errors.ClientError)


def test_every_leaf_comes_from_a_status_or_from_the_client() -> None:
    """The tree holds no exception that nothing raises."""
    assert set(errors.ClientError.__subclasses__()) == set(EXCEPTIONS.values()) | LOCAL


def test_the_tree_is_drawn() -> None:
    """The module docstring names every leaf."""
    for kind in errors.ClientError.__subclasses__():
        assert f"── {kind.__name__} " in (errors.__doc__ or "")


def test_details_of_a_status() -> None:
    """Reason and violations are read from google.rpc details; kinds that are not known are skipped."""
    status = status_pb2.Status(code=3, message="bad")
    bad = error_details_pb2.BadRequest(field_violations=[{"field": "job.budget", "description": "set one"}])
    for detail in (error_details_pb2.ErrorInfo(reason="NO_BUDGET"), bad, error_details_pb2.Help()):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    assert details_of(status) == (
        "NO_BUDGET",
        (errors.Violation(field="job.budget", description="set one"),),
    )
