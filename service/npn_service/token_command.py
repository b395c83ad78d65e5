"""`npn-server token`: who may call this server.  A token is shown once, when it is made."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .access.identity import Scope
from .access.tokens import Token, TokenFile

Command = Callable[..., Any]


@click.group()
def token() -> None:
    """Make, list and revoke tokens in the file that NPN_TOKENS_FILE names.

    A running server follows the file within two seconds.
    """


def on_file(command: Command) -> Command:
    """Give a command the token file, and explain what is wrong with it in one line."""

    @click.option(
        "--file",
        "path",
        envvar="NPN_TOKENS_FILE",
        show_envvar=True,
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="The token file; `add` makes it.",
    )
    @wraps(command)
    def with_file(*, path: Path, **arguments: Any) -> Any:
        try:
            return command(TokenFile(path), **arguments)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path}: {error}") from error

    return with_file


@token.command()
@click.option("--owner", required=True, help="Team or project that its jobs and objects belong to.")
@click.option("--subject", required=True, help="Person or pipeline that holds it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    default=("read", "write"),
    show_default=True,
    help="Repeatable.  priority: jobs above priority 0.  admin: all of them, on every owner's jobs.",
)
@click.option(
    "--read-prefix", "read_prefixes", multiple=True, help="s3://BUCKET/FOLDER/ its jobs may read; repeatable."
)
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="Until it expires.")
@on_file
def add(
    file: TokenFile,
    *,
    owner: str,
    subject: str,
    scopes: tuple[str, ...],
    read_prefixes: tuple[str, ...],
    days: int,
) -> None:
    """Make a token and print it.  It cannot be shown again: the file keeps a hash."""
    text, made = file.add(
        owner=owner,
        subject=subject,
        scopes=[Scope(scope) for scope in scopes],
        read_prefixes=read_prefixes,
        expire_time=datetime.now(UTC).replace(microsecond=0) + timedelta(days=days),
    )
    click.echo(text)
    click.echo(_describe(made), err=True)


@token.command(name="list")
@on_file
def list_tokens(file: TokenFile) -> None:
    """Show every token's id, owner, subject, scopes, expiry and prefixes; never a secret."""
    for each in file.read().values():
        click.echo(_describe(each))


@token.command()
@click.argument("token_id")
@on_file
def revoke(file: TokenFile, *, token_id: str) -> None:
    """Remove the token with this id; calls and watches that go on with it end."""
    try:
        revoked = file.revoke(token_id)
    except KeyError:
        raise click.ClickException(
            f"{file.path} has no token {token_id!r}; see npn-server token list"
        ) from None
    click.echo(f"revoked {_describe(revoked)}", err=True)


def _describe(each: Token) -> str:
    state = "expired" if each.expire_time <= datetime.now(UTC) else "expires"
    words = [
        each.id,
        f"owner={each.owner}",
        f"subject={each.subject}",
        f"scopes={','.join(scope.value for scope in each.scopes)}",
        f"{state}={each.expire_time.isoformat()}",
        *(f"reads={prefix}" for prefix in each.read_prefixes),
    ]
    return "  ".join(words)
