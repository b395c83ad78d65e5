"""logs.py: one line per event."""

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from npn_service.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The logging of the test run, as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_json_lines_carry_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    """What is bound for a call shows in every line of it, in those of libraries too."""
    configure_logs("json")
    with structlog.contextvars.bound_contextvars(job="jobs/1", method="GetJob"):
        structlog.get_logger("npn_service.test").info("seen", count=3)
        logging.getLogger("a.library").warning("careful")
    own, foreign = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (own["event"], own["count"], own["job"], own["method"]) == ("seen", 3, "jobs/1", "GetJob")
    assert (foreign["event"], foreign["job"], foreign["level"]) == ("careful", "jobs/1", "warning")
    assert own["timestamp"].endswith("Z")


def test_exceptions_are_part_of_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback does not break the line."""
    configure_logs("json")
    try:
        raise ValueError("wrong")
    except ValueError:
        structlog.get_logger("npn_service.test").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: wrong" in json.loads(line)["exception"]


def test_a_terminal_gets_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Console lines are for reading; chatter of libraries is left out."""
    configure_logs("console")
    structlog.get_logger("npn_service.test").info("seen", count=3)
    logging.getLogger("a.library").info("chatter")
    (line,) = capsys.readouterr().err.splitlines()
    assert "seen" in line
    assert not line.startswith("{")


def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal as in JSON: they hold passwords and what callers sent."""
    formats: tuple[Literal["console", "json"], ...] = ("console", "json")
    for log_format in formats:
        configure_logs(log_format)
        password = "hunter" + "2"
        try:
            raise ValueError(f"{len(password)} characters")
        except ValueError:
            structlog.get_logger("npn_service.test").exception("failed")
        shown = capsys.readouterr().err
        assert "7 characters" in shown
        assert password not in shown


def test_strangers_do_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no text make gRPC complain with a traceback, which nobody needs; other complaints stay."""
    configure_logs("json")
    logger = logging.getLogger("grpc._cython.cygrpc")
    for damage in (b"\xff".decode, lambda: [][0]):
        try:
            damage()
        except (UnicodeDecodeError, IndexError):
            logger.exception("what a caller sent")
    (line,) = capsys.readouterr().err.splitlines()
    assert "IndexError" in json.loads(line)["exception"]
