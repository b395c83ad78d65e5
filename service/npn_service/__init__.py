"""The server of the compression service."""

import os

# gRPC's core reads this when it is imported.  It has a log of its own, past ours, into which it would write what
# strangers send, byte by byte and line by line.
os.putenv("GRPC_VERBOSITY", "ERROR")
