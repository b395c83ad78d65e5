"""What only a bucket has: URLs, parts, connections that break, and a service that is away."""

import random
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from credentials import Authority
from relay import Relay
from s3_server import SMALL_PART, S3Bucket, S3Server, get_url, put_url

from npn_service.errors import NotFound, StartupError, Unavailable, WrongState
from npn_service.storage.s3 import S3ObjectStore
from npn_service.storage.s3_client import AWAY, PATIENT, QUICK, REFUSED, Patience, S3Client, S3Settings
from npn_service.storage.s3_multipart import MAX_PARTS, Multipart, part_bytes_of

BIG = random.Random(7).randbytes(2 * SMALL_PART + 12345)
# Gives up at once, and takes a slow machine for no silence.
IMPATIENT = Patience(connect=5.0, read=5.0, retry=0.2)


@pytest.fixture
def store(s3: S3Bucket) -> S3ObjectStore:
    """A store with small parts."""
    return S3ObjectStore(s3.settings, part_bytes=SMALL_PART)


@pytest.fixture
def relay(s3: S3Bucket) -> Iterator[Relay]:
    """A way to the same server whose connections break."""
    with Relay(s3.settings.endpoint) as relay:
        yield relay


@pytest.fixture
def away(s3_server: S3Server) -> Iterator[S3Server]:
    """The server, to be stopped and hung; it answers again afterwards."""
    yield s3_server
    s3_server.resume_proxy()
    s3_server.stop_proxy()
    s3_server.start_proxy()


def write(folder: Path, data: bytes) -> Path:
    """A local file."""
    path = folder / "source"
    path.write_bytes(data)
    return path


def open_uploads(s3: S3Bucket) -> list[tuple[str, str]]:
    """Multipart uploads of the bucket that were neither joined nor dropped."""
    return list(Multipart(S3Client(s3.settings), s3.settings.bucket).find_under(""))


def test_a_large_file_goes_in_parts(s3: S3Bucket, store: S3ObjectStore, tmp_path: Path) -> None:
    """It comes back as it was, from any offset, and nothing stays half done."""
    assert store.put_file("jobs/1/big", write(tmp_path, BIG)).size == len(BIG)
    assert b"".join(store.read("jobs/1/big")) == BIG
    assert b"".join(store.read("jobs/1/big", offset=SMALL_PART - 1)) == BIG[SMALL_PART - 1 :]
    assert open_uploads(s3) == []


def test_a_broken_upload_is_tried_again_part_by_part(s3: S3Bucket, relay: Relay, tmp_path: Path) -> None:
    """A connection that breaks in the middle of a part costs that part, not the file."""
    flaky = S3ObjectStore(replace(s3.settings, endpoint=relay.endpoint), part_bytes=SMALL_PART)
    relay.cuts.extend([SMALL_PART + 100_000])  # within the second part
    flaky.put_file("jobs/1/big", write(tmp_path, BIG))
    assert not relay.cuts
    assert relay.passed < len(BIG) + 2 * SMALL_PART
    assert b"".join(S3ObjectStore(s3.settings).read("jobs/1/big")) == BIG


def test_https_with_an_authority_of_its_own(s3: S3Bucket, tmp_path: Path) -> None:
    """What `ca_file` vouches for is trusted, for parts too; without it the service is no one we know."""
    authority = Authority.make()
    certificate, key = authority.issue(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with Relay(s3.settings.endpoint, tls) as relay:
        strange = replace(s3.settings, endpoint=relay.endpoint)
        known = replace(strange, ca_file=authority.write(tmp_path / "authority.pem"))
        store = S3ObjectStore(known, part_bytes=SMALL_PART)
        store.put_file("jobs/1/big", write(tmp_path, BIG))
        assert b"".join(store.read("jobs/1/big")) == BIG
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="its operator must act") as refused:
            S3ObjectStore(strange).put_file("jobs/1/big", write(tmp_path, BIG))
        assert refused.value.reason == REFUSED
        assert time.monotonic() - begin < PATIENT.retry / 2  # another try would find the same certificate


def test_a_broken_read_goes_on_where_it_broke(
    s3: S3Bucket, relay: Relay, store: S3ObjectStore, tmp_path: Path
) -> None:
    """Bytes that arrived are not fetched again."""
    store.put_file("jobs/1/big", write(tmp_path, BIG))
    flaky = S3ObjectStore(replace(s3.settings, endpoint=relay.endpoint))
    relay.cuts.extend([SMALL_PART, 100_000])
    assert b"".join(flaky.read("jobs/1/big")) == BIG
    assert not relay.cuts
    assert relay.passed < len(BIG) + SMALL_PART


def test_a_replaced_object_is_not_read_half_and_half(store: S3ObjectStore, tmp_path: Path) -> None:
    """The rest of the version that was begun, or an error."""
    store.put_file("a", write(tmp_path, b"old"))
    chunks = store.read("a")
    store.put_file("a", write(tmp_path, b"new"))
    with pytest.raises(NotFound):
        b"".join(chunks)


def test_urls_are_signed_for_the_public_endpoint(s3: S3Bucket, tmp_path: Path) -> None:
    """They name it, work there and nowhere else: the signature covers the host."""
    public = s3.settings.endpoint.replace("127.0.0.1", "localhost")
    store = S3ObjectStore(replace(s3.settings, public_endpoint=public))
    store.put_file("a b/ü", write(tmp_path, b"data"))
    url = store.download_link("a b/ü").url
    assert urlsplit(url).hostname == "localhost"
    assert get_url(url) == (200, b"data")
    assert get_url(url, Range="bytes=1-2") == (206, b"at")
    assert get_url(url.replace("localhost", "127.0.0.1", 1))[0] == 403
    assert put_url(url, b"other") == 403  # it reads, and does nothing else
    assert get_url(url.replace("a%20b", "a%20c", 1))[0] == 403


def test_urls_expire(s3: S3Bucket, tmp_path: Path) -> None:
    """After their time they open nothing, and a new one is to be had."""
    store = S3ObjectStore(s3.settings, url_seconds=2.0)
    store.put_file("a", write(tmp_path, b"data"))
    old = store.download_link("a")
    (part,) = store.incoming({"b": 4})["b"].urls.values()
    deadline = time.monotonic() + 60
    while get_url(old.url)[0] == 200 or put_url(part, b"data") == 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert get_url(old.url)[0] == 403
    assert put_url(part, b"data") == 403
    assert get_url(S3ObjectStore(s3.settings).download_link("a").url) == (200, b"data")


def test_parts_of_another_size_do_not_count(s3: S3Bucket, store: S3ObjectStore) -> None:
    """Too few and too many bytes are asked for again; parts that were never asked for are dropped."""
    urls = store.incoming({"k": len(BIG)})["k"].urls
    assert put_url(urls[1], BIG[: SMALL_PART - 1]) == 200
    assert put_url(urls[2], BIG[SMALL_PART : 2 * SMALL_PART] + b"!") == 200
    ((_, upload_id),) = open_uploads(s3)
    Multipart(S3Client(s3.settings), s3.settings.bucket).put_part("k", upload_id, 9, b"excess")
    state = store.incoming({"k": len(BIG)})["k"]
    assert (state.committed, set(state.urls)) == (0, {1, 2, 3})
    for number, url in state.urls.items():
        assert put_url(url, BIG[(number - 1) * SMALL_PART : number * SMALL_PART]) == 200
    store.finish("k", len(BIG))
    assert b"".join(store.read("k")) == BIG
    assert open_uploads(s3) == []


def test_a_finished_key_cannot_be_changed_by_an_old_url(store: S3ObjectStore) -> None:
    """The upload that it belongs to is over.  Swift still takes the part, and then no longer reads the key."""
    (url,) = store.incoming({"k": 4})["k"].urls.values()
    assert put_url(url, b"good") == 200
    store.finish("k", 4)
    assert put_url(url, b"evil") in (200, 404)
    try:
        assert b"".join(store.read("k")) == b"good"
    except Unavailable:
        return


def test_a_dropped_key_leaves_no_parts(s3: S3Bucket, store: S3ObjectStore) -> None:
    """By key, which MinIO needs, and by prefix."""
    for drop in (lambda: store.delete("u/k"), lambda: store.delete_prefix("u/")):
        store.incoming({"u/k": 4})
        assert len(open_uploads(s3)) == 1
        drop()
        assert open_uploads(s3) == []


def test_bytes_do_not_go_through_the_server(store: S3ObjectStore) -> None:
    """A store with URLs takes no appends, and says what to do instead."""
    with pytest.raises(WrongState, match="PUT") as refused:
        store.append("k", 0, b"x")
    assert refused.value.reason == "USE_PART_URLS"


@pytest.mark.parametrize("size", [1, SMALL_PART, 1 << 34, 1 << 40, 5 << 40])
def test_parts_are_few_and_cover_the_file(size: int) -> None:
    """Any size goes in at most so many parts as one list shows."""
    part_bytes = part_bytes_of(size)
    assert part_bytes * (MAX_PARTS + 1) > size
    assert -(-size // part_bytes) <= MAX_PARTS


def test_quick_calls_are_answered_within_two_seconds() -> None:
    """What a caller is promised when S3 is away, at most: a try that begins last, and waits."""
    assert QUICK.total <= 2.0
    assert QUICK.connect + QUICK.retry <= 2.0
    assert PATIENT.read < 60  # the SDK's own default is five minutes


@pytest.mark.parametrize("trouble", ["refused", "hung"])
def test_a_service_that_is_away(s3: S3Bucket, away: S3Server, tmp_path: Path, trouble: str) -> None:
    """Every call says Unavailable in time and nothing of where the bucket is; afterwards all is as before."""
    store = S3ObjectStore(s3.settings, patience=QUICK)
    S3ObjectStore(s3.settings).put_file("a", write(tmp_path, b"data"))
    away.stop_proxy() if trouble == "refused" else away.pause_proxy()
    for call in (
        lambda: store.stat("a"),
        lambda: store.read("a"),
        lambda: store.list("jobs/"),
        lambda: store.download_link("a"),
        lambda: store.incoming({"b": 4}),
        lambda: store.finish("b", 4),
        lambda: store.delete("a"),
        lambda: store.put_file("b", tmp_path / "source"),
    ):
        begun = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            call()
        assert time.monotonic() - begun < 3 * QUICK.total  # the machine may be busy
        assert refused.value.reason == AWAY
        for secret in (s3.settings.bucket, s3.settings.access_key, urlsplit(s3.settings.endpoint).netloc):
            assert secret not in refused.value.message
    away.start_proxy() if trouble == "refused" else away.resume_proxy()
    assert b"".join(S3ObjectStore(s3.settings).read("a")) == b"data"


def test_a_patient_call_outlasts_an_outage(s3: S3Bucket, away: S3Server, tmp_path: Path) -> None:
    """Whoever carries bytes waits until S3 is back."""
    store = S3ObjectStore(s3.settings, patience=PATIENT)
    away.stop_proxy()
    with ThreadPoolExecutor(1) as pool:
        stored = pool.submit(store.put_file, "a", write(tmp_path, b"data"))
        time.sleep(2.0)
        away.start_proxy()
        assert stored.result().size == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bucket": "no-such-bucket"}, "no-such-bucket does not exist"),
        ({"secret_key": "not-the-key"}, "NPN_S3_SECRET_KEY"),
        ({"access_key": "nobody:nobody"}, "NPN_S3_ACCESS_KEY"),
    ],
)
def test_a_bucket_that_cannot_be_used(s3: S3Bucket, wrong: dict[str, str], said: str) -> None:
    """Checked at the start: the operator hears what to change, and no secret is told."""
    with pytest.raises(StartupError, match=said) as refused:
        S3ObjectStore(replace(s3.settings, **wrong)).check()
    assert "not-the-key" not in str(refused.value)
    S3ObjectStore(s3.settings).check()


def test_a_service_away_at_the_start_is_told_apart() -> None:
    """No answer is no refusal."""
    nowhere = S3Settings(endpoint="http://127.0.0.1:1", bucket="nowhere", access_key="a", secret_key="s")
    with pytest.raises(Unavailable) as away:
        S3ObjectStore(nowhere, patience=IMPATIENT).check()
    assert away.value.reason == AWAY
