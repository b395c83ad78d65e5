"""Structured logs: one line per event, JSON or for a terminal, on standard error.

Lines carry what `structlog.contextvars` holds: the RPC's `method` and the `job` that it is about.
"""

import logging
import sys
from typing import Literal

import structlog

# What the libraries say in their own loggers goes the same way.
_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logs(log_format: Literal["auto", "console", "json"]) -> None:
    """Send all logs of this process to standard error; `auto` is console on a terminal, JSON elsewhere."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: tuple[structlog.typing.Processor, ...] = (
        # rich's tracebacks, the default, show local variables: passwords among them
        (structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),)
        if console
        else (structlog.processors.format_exc_info, structlog.processors.JSONRenderer())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_strangers_fault)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("npn_service", "npn.audit"):
        logging.getLogger(name).setLevel(logging.INFO)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _is_no_strangers_fault(record: logging.LogRecord) -> bool:
    """Whether gRPC says more than that bytes were no text, or that a caller was gone: those could fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, UnicodeDecodeError) and type(error).__name__ != "ExecuteBatchError"
