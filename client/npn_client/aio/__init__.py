"""The client for asyncio."""

from .client import AsyncClient
from .job import AsyncJob, AsyncResult

__all__ = ["AsyncClient", "AsyncJob", "AsyncResult"]
