"""settings.py: what the environment may say."""

import pytest
from pydantic import ValidationError

from npn_service.settings import Settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"NPN_{name.upper()}", raising=False)


def test_everything_has_a_default() -> None:
    """An empty environment gives a server on this machine alone."""
    settings = Settings()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.metrics_listen == "127.0.0.1:9464"
    assert str(settings.data_dir) == "npn-data"
    assert (settings.workers, settings.role, settings.database_url) == (1, "all", "")


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is NPN_ and its name; metrics can be turned off."""
    monkeypatch.setenv("NPN_LISTEN", "[::1]:0")
    monkeypatch.setenv("NPN_METRICS_LISTEN", "")
    monkeypatch.setenv("NPN_WORKERS", "3")
    settings = Settings()
    assert (settings.listen, settings.metrics_listen, settings.workers) == ("[::1]:0", "", 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LISTEN", "50051"),
        ("LISTEN", ":50051"),
        ("LISTEN", "localhost:http"),
        ("LISTEN", "localhost:70000"),
        ("METRICS_LISTEN", "9464"),
        ("WORKERS", "-1"),
        ("WORKERS", "many"),
        ("ROLE", "worker"),
        ("DATABASE_URL", "postgresql://localhost/npn"),
        ("THREADS", "0"),
        ("LEASE_SECONDS", "0"),
        ("LOG_FORMAT", "xml"),
        ("MAX_MESSAGE_BYTES", "1"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A wrong setting never becomes a default in silence."""
    monkeypatch.setenv(f"NPN_{name}", value)
    with pytest.raises(ValidationError):
        Settings()
