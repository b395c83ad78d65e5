"""Data that several tests send, and a server that wants tokens."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from guarded_server import Guarded, guard


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clouds of points in six dimensions."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 240)
    x = (random.normal(size=(240, 6)) + y[:, None]).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return path


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One guarded server for all tests of what is let in."""
    with guard(tmp_path_factory.mktemp("guarded")) as guarded:
        yield guarded
