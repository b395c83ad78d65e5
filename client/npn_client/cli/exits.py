"""Exit codes of every command, and errors as people and programs read them.

0    done; of `compress` and `watch`: the job SUCCEEDED
1    the job FAILED
2    the command line or the request is wrong
3    the job was CANCELLED
4    the server does not answer
5    any other error
130  interrupted; the job, if there is one, goes on running
"""

from enum import IntEnum

from npn_client.errors import (
    AlreadyExists,
    ClientError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    JobCancelled,
    JobFailed,
    NotFound,
    Unavailable,
)


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    UNAVAILABLE = 4
    ERROR = 5
    INTERRUPTED = 130


_CODES: tuple[tuple[tuple[type[ClientError], ...], Exit], ...] = (
    ((JobFailed,), Exit.FAILED),
    ((JobCancelled,), Exit.CANCELLED),
    ((InvalidArgument, NotFound, AlreadyExists, FailedPrecondition), Exit.USAGE),
    ((Unavailable, DeadlineExceeded), Exit.UNAVAILABLE),
)


def code_of(error: ClientError) -> Exit:
    """The exit code that an error ends the command with."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return Exit.ERROR


def explain(error: ClientError, server: str) -> str:
    """One line: what was wrong, and the field where there is one."""
    if isinstance(error, Unavailable | DeadlineExceeded):
        if error.reason:  # the server itself says so
            return f"{server} cannot do that now: {error.message}"
        cause = error.message.rpartition(": ")[2]  # gRPC names every address that it tried
        return f"no answer from {server} ({cause}); start one with `npn-server`, or name one with --server"
    if len(error.violations) == 1:
        return f"{field_of(error.violations[0].field)}: {error.message}"
    lines = [f"  {field_of(violation.field)}: {violation.description}" for violation in error.violations]
    return "\n".join([error.message, *lines])


def field_of(path: str) -> str:
    """A field's path as people write it: every request is about a job."""
    return path.removeprefix("job.")
