"""What each RPC asks of its caller: the one table.  A test fails where it and the interface differ."""

from collections.abc import Mapping
from types import MappingProxyType

from npn_service.access.identity import Identity, Scope
from npn_service.errors import PermissionDenied

SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        "CreateJob": Scope.WRITE,
        "GetJob": Scope.READ,
        "GetJobLogs": Scope.READ,
        "ListJobs": Scope.READ,
        "WatchJob": Scope.READ,
        "CancelJob": Scope.WRITE,
        "DeleteJob": Scope.WRITE,
        "ListArchitectures": Scope.READ,
        "GetServerInfo": Scope.READ,
        "CreateUpload": Scope.WRITE,
        "GetUpload": Scope.READ,
        "CompleteUpload": Scope.WRITE,
        "ListUploads": Scope.READ,
        "DeleteUpload": Scope.WRITE,
        "GetDownload": Scope.READ,
        "ReadObject": Scope.READ,
        "WriteObject": Scope.WRITE,
    }
)
# Bytes that leave the house are audited like what changes something.
DOWNLOADS = frozenset({"GetDownload", "ReadObject"})


def require(caller: Identity, scope: Scope, what: str) -> None:
    """Raises PermissionDenied naming the scope, and what needs it, where the caller lacks it."""
    if not caller.may(scope):
        held = ", ".join(sorted(each.value for each in caller.scopes)) or "none"
        raise PermissionDenied(f"{what} needs the scope {scope.value}; this token has {held}")
