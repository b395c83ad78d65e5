"""Options that commands share, and what they become."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from npn_client.client import Client
from npn_client.credentials import Tls
from npn_client.errors import ClientError
from npn_client.spec import Budget, KSchedule, Preprocessing, Training

from . import documents
from .exits import Exit, code_of, explain

Command = Callable[..., Any]
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


LOG_WIDTH = 120  # columns of a table that goes to a file
_AMOUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kKmMgG]?)")
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """The server that a command talks to, and how it answers."""

    server: str
    token: str | Path | None = field(repr=False)
    tls: Tls | None
    json: bool
    console: Console = field(default_factory=_console)

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """A client for the time of a command."""
        with Client(self.server, token=self.token, tls=self.tls or False) as client:
            yield client

    def busy(self, message: str) -> AbstractContextManager[object]:
        """Show on a terminal that something takes its time."""
        return nullcontext() if self.json or not self.console.is_terminal else self.console.status(message)

    def fail(self, error: ClientError | OSError) -> Exit:
        """Say what went wrong; returns the exit code."""
        if self.json and isinstance(error, ClientError):
            click.echo(documents.error_line(error))
        else:
            message = explain(error, self.server) if isinstance(error, ClientError) else str(error)
            click.secho(f"error: {message}", err=True, fg="red")
        return code_of(error) if isinstance(error, ClientError) else Exit.ERROR


def connected(command: Command) -> Command:
    """Give a command the options of the connection, and a `Session` as its first argument."""

    @click.option(
        "--server",
        envvar="NPN_SERVER",
        default="localhost:50051",
        show_default=True,
        help="HOST:PORT [NPN_SERVER]",
    )
    @click.option("--token", envvar="NPN_TOKEN", help="Sent with every call. [NPN_TOKEN]")
    @click.option("--token-file", envvar="NPN_TOKEN_FILE", type=FILE, help="Has the token. [NPN_TOKEN_FILE]")
    @click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities.")
    @click.option(
        "--tls-ca", envvar="NPN_TLS_CA", type=FILE, help="Encrypt, trusting this PEM file. [NPN_TLS_CA]"
    )
    @click.option("--tls-cert", type=FILE, help="This client's certificate (PEM), for a server that asks.")
    @click.option("--tls-key", type=FILE, help="Its private key (PEM).")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
    @wraps(command)
    def with_session(
        *,
        server: str,
        token: str | None,
        token_file: Path | None,
        tls: bool,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        as_json: bool,
        **arguments: Any,
    ) -> Any:
        if token and token_file:
            raise click.UsageError("--token and --token-file exclude each other (NPN_TOKEN, NPN_TOKEN_FILE)")
        if (tls_cert is None) != (tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key go together")
        encrypted = tls or tls_ca or tls_cert
        session = Session(
            server=server,
            token=token or token_file,
            tls=Tls(ca_file=tls_ca, cert_file=tls_cert, key_file=tls_key) if encrypted else None,
            json=as_json,
        )
        try:
            return command(session, **arguments)
        except (ClientError, OSError) as error:
            return session.fail(error)

    return with_session


def amount(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A number of things: `20000`, `20_000`, `20k`, `1.5M`, `2G`."""
    if value is None:
        return None
    match = _AMOUNT.fullmatch(value)
    number = Decimal(match[1].replace("_", "")) * _SUFFIXES[match[2].lower()] if match else None
    if number is None or number != int(number):
        message = f"{value!r} is no positive whole number; write 20000, 20_000, 20k, 1.5M or 2G"
        raise click.BadParameter(message, ctx=context, param=option)
    return int(number)


def budget_options(command: Command) -> Command:
    """Limits of the compact network, gathered as `budget`."""

    @click.option(
        "--max-params", callback=amount, metavar="NUMBER", help="Parameters, biases included; 10k, 1.5M."
    )
    @click.option("--max-macs", callback=amount, metavar="NUMBER", help="Multiply-adds of one sample.")
    @click.option(
        "--max-bytes", callback=amount, metavar="NUMBER", help="Bytes of model.safetensors' tensors."
    )
    @click.option("--max-accuracy-drop-points", type=float, help="Percentage points of validation accuracy.")
    @wraps(command)
    def with_budget(*arguments: Any, **options: Any) -> Any:
        names = ("max_params", "max_macs", "max_bytes", "max_accuracy_drop_points")
        budget = Budget(**{name: options.pop(name) for name in names})
        return command(*arguments, budget=budget, **options)

    return with_budget


def training_options(command: Command) -> Command:
    """How the network is trained, gathered as `training`.  What is not given is the server's choice."""

    @click.option("--epochs", type=int, help="Passes over the training set, all stages together.")
    @click.option("--batch-size", type=int)
    @click.option("--optimizer", default="", help="Of the weights: adam, sgd or auto.")
    @click.option("--lr", type=float, help="Learning rate of the weights.")
    @click.option("--gate-lr", type=float, help="Learning rate of the gates.")
    @click.option("--weight-decay", type=float)
    @click.option(
        "--estimator",
        default="",
        help="Gradient of the gates: disarm, arm, ar, rloo, ugc or straight-through.",
    )
    @click.option("--loss", default="", help="cross_entropy, mse, or distill (without labels).")
    @click.option("--output", default="", help="Which of several outputs the loss looks at: name or index.")
    @click.option("--augment", default="", help="none, flip, crop or crop-flip.")
    @click.option("--from-scratch", is_flag=True, help="Initialise a network of your own anew.")
    @click.option("--round-to", type=int, help="Keep a multiple of this many units in each group.")
    @click.option(
        "--thinnest-branch", type=float, help="A residual branch of which less would stay leaves, 0 to 1."
    )
    @preprocessing_options
    @click.option("--k-start", type=float, help="Plasticity k at the begin of the plastic stage.")
    @click.option("--k-end", type=float, help="Plasticity k at its end.")
    @click.option("--seed", type=int)
    @click.option("--threads", type=int, help="CPU threads of the training process.")
    @click.option(
        "--distillation", type=float, help="Share of the dense network's answers in stage 3, 0 to 1."
    )
    @click.option(
        "--units", default="", help="What can leave: coupled (channels, neurons), or single weights."
    )
    @click.option(
        "--precision", default="", help="Of training passes: float32, bfloat16 or auto, the faster."
    )
    @click.option("--mask", default="", help="learned; random, magnitude or saliency to compare with.")
    @wraps(command)
    def with_training(*arguments: Any, **options: Any) -> Any:
        names = (
            *("epochs", "batch_size", "lr", "gate_lr", "weight_decay", "optimizer", "seed", "threads"),
            *("estimator", "distillation", "mask", "loss", "output", "augment", "from_scratch", "round_to"),
            *("units", "thinnest_branch", "precision"),
            "preprocessing",
        )
        start, end = options.pop("k_start"), options.pop("k_end")
        k = None if start is None and end is None else KSchedule(start=start, end=end)
        training = Training(**{name: options.pop(name) for name in names}, k=k)
        return command(*arguments, training=training, **options)

    return with_training


def preprocessing_options(command: Command) -> Command:
    """What is done to the inputs, gathered as `preprocessing`; numbers mean the mode "fixed"."""

    @click.option(
        "--preprocessing",
        type=click.Choice(["auto", "none"]),
        help="Of the inputs: auto standardises uint8 images, none leaves all as it is.",
    )
    @click.option("--input-scale", type=float, help="(x * SCALE - MEAN) / STD; 1 where MEAN is given.")
    @click.option("--input-mean", callback=_numbers, metavar="MEAN[,MEAN...]", help="Per channel.")
    @click.option("--input-std", callback=_numbers, metavar="STD[,STD...]", help="Per channel.")
    @wraps(command)
    def with_preprocessing(
        *arguments: Any,
        preprocessing: str | None,
        input_scale: float | None,
        input_mean: tuple[float, ...],
        input_std: tuple[float, ...],
        **options: Any,
    ) -> Any:
        given = None if preprocessing is None else Preprocessing(mode=preprocessing)
        if input_scale is not None or input_mean or input_std:
            if given is not None:
                raise click.UsageError("--preprocessing and --input-scale, -mean, -std exclude each other")
            scale = 1.0 if input_scale is None else input_scale
            given = Preprocessing(mode="fixed", scale=scale, mean=input_mean, std=input_std)
        return command(*arguments, preprocessing=given, **options)

    return with_preprocessing


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError:
        message = f"{value!r} is no list of numbers; write them with commas: 0.49,0.48,0.45"
        raise click.BadParameter(message, ctx=context, param=option) from None


def pairs(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Mapping[str, str]:
    """KEY=VALUE, any number of times."""
    for value in values:
        if not value.partition("=")[0] or "=" not in value:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", ctx=context, param=option)
    return {key: text for key, _, text in (value.partition("=") for value in values)}


def numbers(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Mapping[str, int]:
    """KEY=NUMBER, any number of times."""
    found = pairs(context, option, values)
    for key, value in found.items():
        if not value.isdecimal():
            raise click.BadParameter(f"{key}={value} is not KEY=NUMBER", ctx=context, param=option)
    return {key: int(value) for key, value in found.items()}
