"""What an s3:// URI names, and who may read it."""

import pytest

from npn_service.storage.uris import EVERYTHING, S3Uri, covers


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://data/mnist.npz", "data", "mnist.npz"),
        ("s3://data.team-1/a/b/", "data.team-1", "a/b/"),
        ("s3://data/day=1%3A30/ä b+c?#&.npz", "data", "day=1%3A30/ä b+c?#&.npz"),
    ],
)
def test_uris(uri: str, bucket: str, key: str) -> None:
    """A bucket and a key, taken as they are written."""
    parsed = S3Uri.parse(uri)
    assert (parsed.bucket, parsed.key, str(parsed)) == (bucket, key, uri)


WRONG = [
    "objects/1",
    "S3://data/a",
    "s3:/data/a",
    "s3://data",
    "s3://data/",
    "s3://data//",
    "s3:///a",
    "s3://Data/a",
    "s3://da_ta/a",
    "s3://user@data/a",
    "s3://data:9000/a",
    "s3://data/../other/a",
    "s3://data/a/./b",
    "s3://data/a//b",
    "s3://data/a/..",
    "s3://data//a",
    "s3://data/a\\b",
    "s3://data/a\nb",
    "s3://data/a\x00",
    "s3://data/a\x7f",
    "s3://data/%2e%2e/a",
    "s3://data/a%2Fb",
    "s3://data/a%5cb",
    "s3://data/a%00",
    "s3://data/%252e%252e/a",
    f"s3://data/{'a' * 2000}",
    "s3://data/\ud800",
]


@pytest.mark.parametrize("uri", WRONG)
def test_what_is_no_uri(uri: str) -> None:
    """Everything that could lead elsewhere, plain or in disguise, is refused and covered by nothing."""
    with pytest.raises(ValueError, match=r"s3://|must be|must not|at most|valid Unicode|percent"):
        S3Uri.parse(uri)
    assert not covers("s3://", uri)
    assert not covers("s3://data/", uri)


@pytest.mark.parametrize(
    ("prefix", "uri", "expected"),
    [
        ("s3://", "s3://any/thing", True),
        ("s3://data", "s3://data/a", True),
        ("s3://data/", "s3://data/a/b", True),
        ("s3://data/", "s3://data2/a", False),
        ("s3://data", "s3://data-2/a", False),
        ("s3://data/team", "s3://data/team/a.npz", True),
        ("s3://data/team/", "s3://data/team", True),
        ("s3://data/team/", "s3://data/team/", True),
        ("s3://data/team", "s3://data/teammates/a", False),
        ("s3://data/team/a.npz", "s3://data/team/a.npz", True),
        ("s3://data/team/a.npz", "s3://data/team", False),
        ("", "s3://data/a", False),
        ("s3", "s3://data/a", False),
        ("data/", "s3://data/a", False),
    ],
)
def test_covers(prefix: str, uri: str, expected: bool) -> None:
    """A prefix covers itself and what lies below it, by whole segments."""
    assert covers(prefix, uri) is expected


def test_everything() -> None:
    """Who is not restricted reads whatever is a URI."""
    assert any(covers(prefix, "s3://a-bucket/x") for prefix in EVERYTHING)
