"""The RPC on the built-in architectures."""

from npn.v1 import compression_pb2 as pb
from npn_core.catalogue import architectures
from npn_service.access.identity import Identity
from npn_service.errors import InvalidRequest

from .decode import decode_page_size
from .encode import encode_architecture


def list_architectures(
    request: pb.ListArchitecturesRequest, caller: Identity
) -> pb.ListArchitecturesResponse:
    """ListArchitectures.  A page token is the name of the last architecture before the page."""
    del caller  # the same for all
    size = decode_page_size(request.page_size)
    known = architectures()
    if request.page_token and request.page_token not in {info.name for info in known}:
        raise InvalidRequest("page_token", "this page token is none that the server gave")
    rest = [info for info in known if info.name > request.page_token]
    return pb.ListArchitecturesResponse(
        architectures=[encode_architecture(info) for info in rest[:size]],
        next_page_token=rest[size - 1].name if len(rest) > size else "",
    )
