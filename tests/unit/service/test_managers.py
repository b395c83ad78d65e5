"""Jobs and uploads over a real store and real files."""

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from job_samples import PLAN, RESULT, SPEC, lease

from npn_service.errors import (
    AlreadyExists,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    Unavailable,
    WrongState,
)
from npn_service.jobs.garbage import collect
from npn_service.jobs.inputs import Inputs, JobInputs
from npn_service.jobs.manager import JobManager
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import (
    ArtifactFile,
    DatasetRef,
    FileSpec,
    Job,
    JobSpec,
    ModelRef,
    Upload,
    UploadState,
)
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.jobs.uploads import UploadLimits, UploadManager
from npn_service.storage.cache import Cache
from npn_service.storage.local import LocalObjectStore
from npn_service.storage.uris import EVERYTHING

A, B = b"first file", b"second"


@dataclass(kw_only=True)
class Service:
    """The managers and what they stand on."""

    store: SqlJobStore
    objects: LocalObjectStore
    jobs: JobManager
    inputs: JobInputs
    uploads: UploadManager

    def begin(self, **contents: bytes) -> Upload:
        """An open upload of files with these paths and bytes."""
        files = [announce(path, data) for path, data in contents.items()]
        return self.uploads.create(owner="local", files=files, request_id="")

    def send(self, upload: Upload, path: str, data: bytes, offset: int = 0) -> int:
        """Append bytes to one file."""
        return self.uploads.append(owner="local", upload_id=upload.id, path=path, offset=offset, data=data)

    def complete(self, upload: Upload) -> Upload:
        """Complete the upload."""
        return self.uploads.complete(owner="local", upload_id=upload.id)

    def committed(self, upload: Upload) -> dict[str, int]:
        """Bytes that have arrived, by path."""
        return {path: state.committed for path, state in self.uploads.incoming(upload).items()}

    def stored(self, path: str, data: bytes) -> str:
        """The URI of a new object with one file."""
        upload = self.begin(**{path: data})
        self.send(upload, path, data)
        return f"objects/{self.complete(upload).object_id}"

    def stored_folder(self, contents: dict[str, bytes]) -> str:
        """The URI of a new object with these paths and bytes."""
        upload = self.begin(**contents)
        for path, data in contents.items():
            self.send(upload, path, data)
        return f"objects/{self.complete(upload).object_id}"

    def submit(self, uri: str, request_id: str = "", request: bytes = b"request") -> Job:
        """A job on a dataset."""
        spec = replace(SPEC, dataset=DatasetRef(uri=uri))
        return self.jobs.submit(
            owner="local",
            creator="me",
            spec=spec,
            sources={},
            plan=PLAN,
            request_id=request_id,
            request=request,
        )

    def read(self, *, owner: str, spec: JobSpec) -> Inputs:
        """Where the inputs of a job lie, from then on: uploads are on this host anyway."""
        self.inputs.find(owner=owner, spec=spec, read_prefixes=EVERYTHING)
        with self.inputs.hold(owner=owner, spec=spec, sources={}, stop=threading.Event()) as found:
            return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Managers over SQLite and a local folder; objects live no longer than they are needed."""
    url = f"sqlite:///{tmp_path / 'npn.sqlite'}"
    migrate(url)
    store, objects = SqlJobStore(url, object_lifetime=timedelta(0)), LocalObjectStore(tmp_path / "objects")
    limits = UploadLimits(max_bytes=1000, max_files=3)
    yield Service(
        store=store,
        objects=objects,
        jobs=JobManager(store, objects),
        inputs=JobInputs(store, objects, Cache(tmp_path / "cache", max_bytes=1 << 20)),
        uploads=UploadManager(store, objects, limits),
    )
    store.close()


def announce(path: str, data: bytes) -> FileSpec:
    """What a client says of a file before it sends it."""
    return FileSpec(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def all_keys(service: Service) -> list[str]:
    """Every key of the object store."""
    prefixes = ("jobs/", "objects/")
    return [stored.key for prefix in prefixes for stored in service.objects.list(prefix)]


def test_an_upload_resumes_from_what_is_committed(service: Service) -> None:
    """After a cut in the middle of one of two files, the rest is all that has to be sent."""
    upload = service.begin(a=A, b=B)
    service.send(upload, "b", B)
    service.send(upload, "a", A[:4])
    assert service.committed(service.store.get_upload(owner="local", upload_id=upload.id)) == {
        "a": 4,
        "b": len(B),
    }
    with pytest.raises(InvalidRequest) as refused:
        service.complete(upload)
    assert refused.value.reason == "UPLOAD_INCOMPLETE"
    assert refused.value.violations[0].field == "files[0]"
    assert service.send(upload, "a", A[4:], offset=4) == len(A)
    done = service.complete(upload)
    assert done.state is UploadState.COMPLETE
    assert service.committed(done) == {"a": len(A), "b": len(B)}
    assert all_keys(service) == [f"objects/local/{done.object_id}/a", f"objects/local/{done.object_id}/b"]
    assert b"".join(service.objects.read(f"objects/local/{done.object_id}/a")) == A


def test_wrong_bytes_are_refused_and_dropped(service: Service) -> None:
    """A file with another hash names itself and can be sent again; its neighbours stay."""
    upload = service.begin(a=A, b=B)
    service.send(upload, "a", A)
    service.send(upload, "b", B[::-1])
    with pytest.raises(InvalidRequest) as refused:
        service.complete(upload)
    assert refused.value.reason == "HASH_MISMATCH"
    assert refused.value.violations[0].field == "files[1].sha256"
    assert service.committed(upload) == {"a": len(A), "b": 0}
    service.send(upload, "b", B)
    assert service.complete(upload).state is UploadState.COMPLETE


def test_completing_twice_gives_the_same_object(service: Service) -> None:
    """A retried completion is harmless, and the complete upload takes no more bytes."""
    upload = service.begin(a=A)
    service.send(upload, "a", A)
    assert service.complete(upload) == service.complete(upload)
    with pytest.raises(WrongState):
        service.send(upload, "a", b"", offset=len(A))


def test_a_completion_that_was_cut_off_is_done_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every file verified and the row not committed, as a kill leaves it, completing finishes the work."""
    upload = service.begin(a=A, b=B)
    service.send(upload, "a", A)
    service.send(upload, "b", B)
    with monkeypatch.context() as cut:
        cut.setattr(service.store, "complete_upload", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            service.complete(upload)
    done = service.complete(upload)
    assert done.state is UploadState.COMPLETE
    assert all_keys(service) == [f"objects/local/{upload.id}/a", f"objects/local/{upload.id}/b"]


def test_an_empty_file_needs_no_bytes(service: Service) -> None:
    """A file of size 0 exists once the upload is complete."""
    upload = service.begin(a=A, empty=b"")
    service.send(upload, "a", A)
    done = service.complete(upload)
    assert service.objects.stat(f"objects/local/{done.object_id}/empty").size == 0


def test_only_announced_bytes_are_taken(service: Service) -> None:
    """An unknown path, more bytes than announced and a wrong offset store nothing."""
    upload = service.begin(a=A)
    with pytest.raises(InvalidRequest):
        service.send(upload, "other", b"x")
    with pytest.raises(InvalidRequest):
        service.send(upload, "a", A + b"x")
    with pytest.raises(InvalidRequest):
        service.send(upload, "a", A[:2], offset=1)
    with pytest.raises(NotFound):
        service.uploads.append(owner="bob", upload_id=upload.id, path="a", offset=0, data=A)
    assert all_keys(service) == []


GOOD = announce("a", A)


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ([], "files"),
        ([GOOD, GOOD], "files"),
        ([GOOD, announce("a/b", B)], "files"),
        ([GOOD, announce("../../x", B)], "files[1].path"),
        ([announce("/etc/passwd", B)], "files[0].path"),
        ([announce("a\0", B)], "files[0].path"),
        ([announce("", B)], "files[0].path"),
        ([replace(GOOD, size=-1)], "files[0].size"),
        ([replace(GOOD, sha256=GOOD.sha256.upper())], "files[0].sha256"),
        ([replace(GOOD, sha256="12")], "files[0].sha256"),
    ],
)
def test_files_that_cannot_be_are_refused(service: Service, files: list[FileSpec], field: str) -> None:
    """The field of the first wrong file is named, and no upload is made."""
    with pytest.raises(InvalidRequest) as refused:
        service.uploads.create(owner="local", files=files, request_id="")
    assert refused.value.violations[0].field == field
    assert service.store.list_uploads(owner="local", page_size=10, page_token="") == ([], "")


@pytest.mark.parametrize(
    "files", [[replace(GOOD, size=1001)], [replace(GOOD, path=str(number)) for number in range(4)]]
)
def test_uploads_have_limits(service: Service, files: list[FileSpec]) -> None:
    """Too many bytes or files are refused before anything is sent."""
    with pytest.raises(LimitExceeded):
        service.uploads.create(owner="local", files=files, request_id="")


def test_a_deleted_upload_leaves_nothing(service: Service) -> None:
    """Its bytes are gone with it."""
    upload = service.begin(a=A)
    service.send(upload, "a", A)
    service.uploads.delete(owner="local", upload_id=upload.id)
    assert all_keys(service) == []
    assert service.store.list_garbage() == []


def test_a_completion_after_the_delete_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload deleted while it is completed is gone, with the bytes that were on their way."""
    upload = service.begin(a=A)
    service.send(upload, "a", A)
    monkeypatch.setattr(service.store, "get_upload", lambda **_: upload)  # read before the delete
    service.store.delete_upload(owner="local", upload_id=upload.id)
    with pytest.raises(NotFound):
        service.complete(upload)
    assert all_keys(service) == []


def test_a_dataset_is_a_file_or_a_folder(service: Service) -> None:
    """An uploaded file is found on the disk, several files in one folder under their paths."""
    uri = service.stored("mnist.npz", A)
    inputs = service.read(owner="local", spec=replace(SPEC, dataset=DatasetRef(uri=uri)))
    assert (inputs.dataset.read_bytes(), inputs.model) == (A, None)
    folder = DatasetRef(uri=service.stored_folder({"train/0.parquet": A, "test.parquet": B}))
    path = service.read(owner="local", spec=replace(SPEC, dataset=folder)).dataset
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert found == {"train/0.parquet", "test.parquet"}
    one = DatasetRef(uri=service.stored_folder({"data/train.parquet": A}))
    path = service.read(owner="local", spec=replace(SPEC, dataset=one)).dataset
    assert (path / "data/train.parquet").read_bytes() == A


WRONG_URIS = ["objects/none", "s3://bucket/key", "/etc/passwd", "objects/../../x", ""]


def test_inputs_belong_to_the_owner(service: Service) -> None:
    """What is another owner's, elsewhere or nothing is refused naming its own field."""
    uri = service.stored("net.pt2", A)
    model = service.read(owner="local", spec=on(uri, model=uri)).model
    assert model is not None
    assert model.read_bytes() == A
    wrong = [("local", on(other), "job.dataset.uri") for other in WRONG_URIS]
    wrong += [("local", on(uri, model=other), "job.model.uri") for other in WRONG_URIS]
    wrong += [("bob", on(uri, model=uri), "job.dataset.uri")]
    wrong += [("local", on(uri, model=service.stored_folder({"a": A, "b": B})), "job.model.uri")]
    for owner, spec, field in wrong:
        with pytest.raises(InvalidRequest) as refused:
            service.read(owner=owner, spec=spec)
        assert refused.value.violations[0].field == field


def on(dataset: str, *, model: str | None = None) -> JobSpec:
    """A job on these URIs."""
    spec = replace(SPEC, dataset=DatasetRef(uri=dataset))
    return spec if model is None else replace(spec, model=ModelRef(uri=model))


def test_a_request_is_known_by_its_bytes(service: Service) -> None:
    """The same bytes give the same job, other bytes under the id are refused."""
    uri = service.stored("a", A)
    job = service.submit(uri, request_id="one", request=b"same")
    assert service.submit(uri, request_id="one", request=b"same") == job
    assert service.jobs.earlier(owner="local", request_id="one", request=b"same") == job
    assert service.jobs.earlier(owner="local", request_id="two", request=b"same") is None
    with pytest.raises(AlreadyExists):
        service.submit(uri, request_id="one", request=b"other")


def test_the_artifact_is_served_after_success_alone(service: Service, tmp_path: Path) -> None:
    """A file of the result has its key; other paths do not exist; before the end there is none."""
    job = service.submit(service.stored("a", A))
    lease(service.store)
    with pytest.raises(WrongState):
        service.jobs.artifact_file(owner="local", job_id=job.id, path="model.pt2")
    service.store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    key, file = service.jobs.artifact_file(owner="local", job_id=job.id, path="model.pt2")
    assert key == f"jobs/{job.id}/attempts/1/model.pt2"
    assert file == ArtifactFile(path="model.pt2", size=3, sha256="0" * 64)
    for path in ("other", "../1/model.pt2", ""):
        with pytest.raises(NotFound):
            service.jobs.artifact_file(owner="local", job_id=job.id, path=path)
    with pytest.raises(NotFound):
        service.jobs.artifact_file(owner="bob", job_id=job.id, path="model.pt2")


def test_a_deleted_job_takes_its_bytes_along(service: Service, tmp_path: Path) -> None:
    """Everything under the job's prefix goes; another job's stays."""
    (tmp_path / "file").write_bytes(A)
    uri = service.stored("a", A)
    job, other = service.submit(uri), service.submit(uri)
    for each in (job, other):
        service.objects.put_file(f"{each.prefix}attempts/1/model.pt2", tmp_path / "file")
    with pytest.raises(WrongState):
        service.jobs.delete(owner="local", job_id=job.id)
    service.store.cancel_job(owner="local", job_id=job.id)
    service.jobs.delete(owner="local", job_id=job.id)
    assert service.objects.list(job.prefix) == []
    assert len(service.objects.list(other.prefix)) == 1


def test_collect_spares_what_an_unfinished_job_needs(service: Service) -> None:
    """A dataset past its time stays for the job that waits, and goes when nobody needs it."""
    kept, unused = service.stored("a", A), service.stored("b", B)
    job = service.submit(kept)
    collect(service.store, service.objects, job_retention=0)
    assert all_keys(service) == [f"objects/local/{kept.removeprefix('objects/')}/a"]
    with pytest.raises(InvalidRequest):
        service.submit(unused)
    service.store.cancel_job(owner="local", job_id=job.id)
    collect(service.store, service.objects, job_retention=0)
    assert all_keys(service) == []


def test_a_sweep_that_was_cut_off_is_done_again(service: Service) -> None:
    """Bytes whose row is gone are removed by the next sweep, whatever the crash left of them."""
    upload = service.begin(a=A)
    service.send(upload, "a", A)
    service.store.delete_upload(owner="local", upload_id=upload.id)  # killed before the bytes went
    assert all_keys(service) != []
    collect(service.store, service.objects, job_retention=0)
    assert all_keys(service) == []
    assert service.store.list_garbage() == []


def test_a_delete_removes_its_own_bytes(service: Service) -> None:
    """What others left is for the next collection: a caller waits for nobody's bytes but its own."""
    left, own = service.begin(a=A), service.begin(b=B)
    service.send(left, "a", A)
    service.send(own, "b", B)
    service.store.delete_upload(owner="local", upload_id=left.id)
    service.uploads.delete(owner="local", upload_id=own.id)
    assert service.store.list_garbage() == [f"{left.prefix}a"]
    assert all_keys(service) == [f"{left.prefix}a"]


def test_nothing_more_is_hashed_or_removed_by_a_server_that_stops(service: Service) -> None:
    """Bytes that are noted stay noted, and a completion is to be asked for again."""
    stopping = threading.Event()
    uploads = UploadManager(service.store, service.objects, UploadLimits(), stopping)
    left, own = service.begin(a=A), service.begin(b=B)
    service.send(left, "a", A)
    service.send(own, "b", B)
    service.store.delete_upload(owner="local", upload_id=left.id)
    stopping.set()
    collect(service.store, service.objects, job_retention=0, stopping=stopping)
    assert service.store.list_garbage() == [f"{left.prefix}a"]
    with pytest.raises(Unavailable, match="complete the upload again"):
        uploads.complete(owner="local", upload_id=own.id)
    stopping.clear()
    assert uploads.complete(owner="local", upload_id=own.id).object_id


LONG_AGO = 1_000_000_000.0  # seconds since 1970: old enough to be collected


def keep(service: Service, key: str, tmp_path: Path, *, old: bool = True) -> str:
    """Store a key, written long ago."""
    (tmp_path / "file").write_bytes(A)
    service.objects.put_file(key, tmp_path / "file")
    if old:
        os.utime(service.objects.local_path(key), (LONG_AGO, LONG_AGO))
    return key


def finished_job(service: Service) -> Job:
    """A job that succeeded in its second attempt."""
    service.submit(service.stored("data", A))
    job = lease(service.store)
    service.store.release_job(job_id=job.id, attempt=1, cause="it crashed", counts=True)
    lease(service.store)
    return service.store.finish_job(job_id=job.id, attempt=2, result=RESULT)


def test_orphans_go_when_they_are_old(service: Service, tmp_path: Path) -> None:
    """Keys that no row speaks of go a day after they were written, not earlier."""
    for key in ("jobs/none/attempts/1/a", "objects/local/none/a"):
        keep(service, key, tmp_path)
    young = [
        keep(service, "jobs/new/attempts/1/a", tmp_path, old=False),
        keep(service, "jobs/new/attempts/1/b", tmp_path),  # its neighbour was just written
    ]
    collect(service.store, service.objects, job_retention=0)
    assert all_keys(service) == young


def test_what_is_in_use_is_never_an_orphan(service: Service, tmp_path: Path) -> None:
    """An object that a queued job reads, all of a running job's attempts, an open upload, an artifact: they stay."""
    done = finished_job(service)
    used = service.stored("a", A)
    service.submit(used)
    running = lease(service.store)
    waiting = service.submit(used)
    upload = service.begin(a=A)
    kept = {
        keep(service, done.attempt_prefix + "model.pt2", tmp_path),
        keep(service, f"{running.prefix}attempts/1/checkpoint", tmp_path),
        keep(service, f"{waiting.prefix}attempts/1/checkpoint", tmp_path),
        keep(service, upload.prefix + "a", tmp_path),
        f"objects/local/{used.removeprefix('objects/')}/a",
    }
    collect(service.store, service.objects, job_retention=0)
    assert set(all_keys(service)) == kept


def test_what_a_finished_job_did_not_publish_goes(service: Service, tmp_path: Path) -> None:
    """Losers' prefixes, and checkpoints of the attempt that won; the artifact stays."""
    job = finished_job(service)
    artifact = keep(service, job.attempt_prefix + "model.pt2", tmp_path)
    keep(service, job.attempt_prefix + "checkpoints/1.safetensors", tmp_path)
    keep(service, f"{job.prefix}attempts/1/model.pt2", tmp_path)
    collect(service.store, service.objects, job_retention=0)
    assert [key for key in all_keys(service) if key.startswith("jobs/")] == [artifact]


def test_a_dry_run_tells_what_would_go_and_removes_nothing(service: Service, tmp_path: Path) -> None:
    """The same removals, with their reasons, in the dry run and in the run after it."""
    job = finished_job(service)
    keep(service, job.attempt_prefix + "model.pt2", tmp_path)
    keep(service, "jobs/none/attempts/1/a", tmp_path)
    before = all_keys(service)
    told = collect(service.store, service.objects, job_retention=1e-6, dry_run=True)
    assert all_keys(service) == before
    assert {job.prefix, "jobs/none/"} <= {removal.prefix for removal in told}
    assert all(removal.reason for removal in told)
    assert collect(service.store, service.objects, job_retention=1e-6) == told
    assert all_keys(service) == []
