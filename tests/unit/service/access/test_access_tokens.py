"""access/tokens.py: the token file, and what a server makes of it."""

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from credentials import make_token

from npn_service.access.identity import Scope
from npn_service.access.tokens import TokenFile, TokenTable
from npn_service.errors import StartupError, Unauthenticated
from npn_service.main import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the token file is to be."""
    return tmp_path / "tokens.json"


def test_a_token_stands_for_its_identity(path: Path) -> None:
    """Owner, subject, scopes and prefixes are those that the token was made with."""
    text = make_token(path, owner="vision", scopes="read priority", reads=("s3://data/vision/",))
    identity = TokenTable(path).find(text)
    assert (identity.owner, identity.subject) == ("vision", "vision-ci")
    assert identity.read_prefixes == ("s3://data/vision/",)
    assert identity.may(Scope.READ)
    assert identity.may(Scope.PRIORITY)
    assert not identity.may(Scope.WRITE)
    assert identity.reach == "vision"


def test_an_admin_may_all_and_reaches_all(path: Path) -> None:
    """The scope admin includes the others, on every owner's jobs."""
    text = make_token(path, scopes="admin")
    identity = TokenTable(path).find(text)
    assert all(identity.may(scope) for scope in Scope)
    assert identity.reach is None


def test_the_file_knows_no_secret(path: Path) -> None:
    """Only a hash is at rest, and nobody else may read the file."""
    text = make_token(path)
    assert text.rpartition("_")[2] not in path.read_text()
    assert text[18:] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_wrong_tokens_are_all_alike(path: Path) -> None:
    """A wrong secret, an unknown id and plain nonsense get the same answer."""
    text = make_token(path)
    table = TokenTable(path)
    other = text[:-1] + ("a" if text[-1] != "a" else "b")
    messages = set()
    for wrong in (other, text.replace(text[4:16], "0" * 12), "npn_", "hello", "é", text + " "):
        with pytest.raises(Unauthenticated) as caught:
            table.find(wrong)
        messages.add((caught.value.message, caught.value.reason))
    assert len(messages) == 1


def test_the_table_follows_the_file(path: Path) -> None:
    """New tokens are taken and revoked ones refused as soon as the file is read again."""
    first = make_token(path)
    table = TokenTable(path)
    seen = table.find(first)
    second = make_token(path)
    TokenFile(path).revoke(seen.token_id)
    table.refresh()
    assert table.find(second).owner == "vision"
    assert not table.knows(seen)
    with pytest.raises(Unauthenticated):
        table.find(first)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"format_version": 2, "tokens": []}'])
def test_a_broken_file_changes_nothing(path: Path, broken: str) -> None:
    """While an administrator's editor leaves nonsense, those who were let in are let in."""
    text = make_token(path)
    table = TokenTable(path)
    path.write_text(broken)
    table.refresh()
    assert table.find(text)
    path.unlink()
    table.refresh()
    assert table.find(text)


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604, 0o666])
def test_a_file_that_others_can_change_is_refused(path: Path, mode: int) -> None:
    """Whoever may write the file lets himself in; strangers have no business reading it."""
    make_token(path)
    path.chmod(mode)
    with pytest.raises(StartupError, match="chmod 600"):
        TokenTable(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_mounted_secret_is_taken(path: Path, mode: int) -> None:
    """Kubernetes gives Secrets to the container's group."""
    text = make_token(path)
    path.chmod(mode)
    assert TokenTable(path).find(text)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("owner", "..", "owner"),
        ("owner", "a/b", "owner"),
        ("subject", "", "subject"),
        ("scopes", [], "scope"),
        ("scopes", ["root"], "root"),
        ("sha256", "0", "sha256"),
        ("expire_time", "2026-01-01T00:00:00", "zone"),
        ("read_prefixes", ["s3://data"], "s3://BUCKET/"),
        ("read_prefixes", ["s3://data/../other/"], "s3://BUCKET/"),
        ("read_prefixes", ["file:///"], "s3://BUCKET/"),
        ("comment", "x", "unknown key"),
    ],
)
def test_the_file_is_read_strictly(path: Path, key: str, value: object, message: str) -> None:
    """A slip in the file is found when it is read, and named."""
    make_token(path)
    document = json.loads(path.read_text())
    document["tokens"][0][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(StartupError, match=message):
        TokenTable(path)


def test_administrators_do_not_lose_each_others_tokens(path: Path) -> None:
    """Changes at the same time follow one another."""
    threads = [threading.Thread(target=make_token, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TokenFile(path).read()) == 8
    assert list(path.parent.iterdir()) == [path]


def test_the_command_makes_lists_and_revokes(path: Path) -> None:
    """The token is the only line on standard output; the list has everything but the secret."""
    runner = CliRunner(env={"NPN_TOKENS_FILE": str(path)})
    made = runner.invoke(
        main, ["token", "add", "--owner", "vision", "--subject", "Ann", "--read-prefix", "s3://d/x/"]
    )
    assert made.exit_code == 1  # a bucket's name has three letters
    made = runner.invoke(
        main, ["token", "add", "--owner", "vision", "--subject", "Ann", "--read-prefix", "s3://dat/"]
    )
    text = made.stdout.strip()
    identity = TokenTable(path).find(text)
    assert identity.read_prefixes == ("s3://dat/",)
    listed = runner.invoke(main, ["token", "list"])
    assert identity.token_id in listed.output
    assert "owner=vision" in listed.output
    assert text.removeprefix(f"npn_{identity.token_id}_") not in listed.output
    assert runner.invoke(main, ["token", "revoke", identity.token_id]).exit_code == 0
    assert runner.invoke(main, ["token", "list"]).output == ""
    assert runner.invoke(main, ["token", "revoke", identity.token_id]).exit_code == 1
