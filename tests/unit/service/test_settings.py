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
    assert (settings.workers, settings.role, settings.database_url.get_secret_value()) == (1, "all", "")


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is NPN_ and its name; metrics can be turned off."""
    monkeypatch.setenv("NPN_LISTEN", "[::1]:0")
    monkeypatch.setenv("NPN_METRICS_LISTEN", "")
    monkeypatch.setenv("NPN_WORKERS", "3")
    settings = Settings()
    assert (settings.listen, settings.metrics_listen, settings.workers) == ("[::1]:0", "", 3)


S3 = {
    "ENDPOINT": "https://minio.example.com:9000",
    "BUCKET": "models",
    "ACCESS_KEY": "me",
    "SECRET_KEY": "hush",
}


def test_s3_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing set is the local folder; an endpoint and a bucket are enough where the machine has an identity."""
    assert Settings().s3 is None
    for name in ("ENDPOINT", "BUCKET"):
        monkeypatch.setenv(f"NPN_S3_{name}", S3[name])
    found = Settings().s3
    assert found is not None
    assert (found.endpoint, found.bucket, found.region, found.access_key) == (
        S3["ENDPOINT"],
        "models",
        "us-east-1",
        "",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"ENDPOINT": ""},
            "NPN_S3_ENDPOINT is missing, but NPN_S3_ACCESS_KEY, NPN_S3_BUCKET, NPN_S3_SECRET_KEY",
        ),
        ({"BUCKET": ""}, "bucket is missing"),
        ({"BUCKET": "No/Bucket"}, "No/Bucket"),
        ({"ACCESS_KEY": ""}, "access key is missing"),
        ({"SECRET_KEY": ""}, "secret key is missing"),
        ({"ENDPOINT": "minio:9000"}, "https://HOST"),
        ({"PUBLIC_ENDPOINT": "https://files.example.com/path"}, "without a path"),
    ],
)
def test_half_of_s3_is_refused(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str) -> None:
    """The message says what is missing or wrong, and does not show the secret."""
    for name, value in (S3 | changes).items():
        monkeypatch.setenv(f"NPN_S3_{name}", value)
    with pytest.raises(ValidationError, match=said) as refused:
        Settings()
    assert "hush" not in str([problem["msg"] for problem in refused.value.errors()])


def test_the_secret_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings nor what is made of them print it."""
    for name, value in S3.items():
        monkeypatch.setenv(f"NPN_S3_{name}", value)
    settings = Settings()
    assert "hush" not in repr(settings) + repr(settings.s3)


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
        ("ROLE", "queen"),
        ("DATABASE_URL", "mysql://localhost/npn"),
        ("DATABASE_URL", "postgresql+asyncpg://localhost/npn"),
        ("DATABASE_URL", "localhost"),
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


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_is_taken(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """Both spellings of the driver, and no way of printing the settings tells the password."""
    monkeypatch.setenv("NPN_DATABASE_URL", f"{scheme}://npn:hunter2@db/npn")
    settings = Settings()
    assert settings.database_url.get_secret_value().endswith("@db/npn")
    assert "hunter2" not in f"{settings!r}{settings}{settings.model_dump()}"


def test_a_wrong_database_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password, which must not reach a terminal or a log."""
    monkeypatch.setenv("NPN_DATABASE_URL", "mysql://npn:hunter2@db/npn")
    with pytest.raises(ValidationError) as refused:
        Settings()
    (problem,) = refused.value.errors()
    assert "mysql" in problem["msg"]
    assert "hunter2" not in str(problem["msg"])
