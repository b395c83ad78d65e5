"""worker/attempt_log.py: what an owner may read of an attempt."""

from dataclasses import replace

import pytest
from job_samples import progress_at

from npn_core.progress import Stage
from npn_service.worker.attempt_log import MAX_BYTES, AttemptLog, newest, without_places


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '  File "/opt/v/lib/python3.11/site-packages/torch/nn/conv.py", line 3',
            '  File "torch/nn/conv.py", line 3',
        ),
        ('  File "/usr/lib/python3.11/threading.py", line 3', '  File "threading.py", line 3'),
        ("no such file: '/data/objects/keys/objects/bob/ab/train.npz'", "no such file: 'train.npz'"),
        (
            "GET https://minio:9000/b/k.npz?X-Amz-Signature=abc&x=1 failed",
            "GET https://minio:9000/b/k.npz failed",
        ),
        ("s3://data/mnist.npz", "s3://data/mnist.npz"),
        ("epoch 3/4, a/b and 1 / 2", "epoch 3/4, a/b and 1 / 2"),
    ],
)
def test_places_are_taken_out(line: str, told: str) -> None:
    """Folders of the machine and signatures of URLs go; what a user gave or knows stays."""
    assert without_places(line) == told


def test_a_log_is_bounded_and_keeps_the_end() -> None:
    """However much a worker says, whole lines of the newest stay, in at most 64 KiB of UTF-8."""
    log = AttemptLog()
    for number in range(10_000):
        log.add(f"event {number}")
    text = log.text("\n".join(f"ä line {number}" for number in range(20_000)))
    assert len(text.encode()) <= MAX_BYTES
    assert text.endswith("ä line 19999")
    assert text.splitlines()[0].startswith("ä line ")
    assert newest("short") == "short"


def test_stages_and_warnings_are_noted_once() -> None:
    """Progress makes a line where a stage begins or something is to be known."""
    log = AttemptLog()
    for step in (1, 2):
        log.follow(progress_at(step))
    log.follow(replace(progress_at(3), stage=Stage.PLASTIC, warning="the budget is not met"))
    lines = log.text("").splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "stage dense, step 1 of 100",
        "stage plastic, step 3 of 100",
        "warning: the budget is not met",
    ]
