"""`python -m npn_client.cli` is `npn`."""

from .commands import main

main()
