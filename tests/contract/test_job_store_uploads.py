"""Uploads, the objects they become, and garbage, over every JobStore."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from job_samples import RESULT, create, lease

from npn_service.errors import AlreadyExists, InvalidRequest, NotFound, WrongState
from npn_service.jobs.model import DatasetRef, FileSpec, ModelRef, Upload, UploadState
from npn_service.jobs.store import JobStore

FILES = (FileSpec(path="b", size=2, sha256="b" * 64), FileSpec(path="a", size=1, sha256="a" * 64))


def begin(
    store: JobStore,
    *,
    owner: str = "local",
    request_id: str = "",
    files: tuple[FileSpec, ...] = FILES,
    lifetime: float = 60.0,
) -> Upload:
    """A new upload."""
    return store.create_upload(owner=owner, files=files, request_id=request_id, lifetime_seconds=lifetime)


def complete(store: JobStore, upload: Upload) -> Upload:
    """The upload, complete, with an object of its own id."""
    return store.complete_upload(owner=upload.owner, upload_id=upload.id, object_id=upload.id)


def test_an_upload_is_open_until_it_is_complete(store: JobStore) -> None:
    """Created open with its files in order; complete with its object; a repeat changes nothing."""
    upload = begin(store)
    assert (upload.state, upload.files, upload.object_id) == (UploadState.OPEN, FILES, None)
    assert upload.expire_time - upload.create_time == timedelta(seconds=60)
    assert store.get_upload(owner="local", upload_id=upload.id) == upload
    done = complete(store, upload)
    assert (done.state, done.object_id) == (UploadState.COMPLETE, upload.id)
    assert store.complete_upload(owner="local", upload_id=upload.id, object_id="other") == done
    assert store.get_object(owner="local", object_id=upload.id) == FILES


def test_strangers_find_nothing(store: JobStore) -> None:
    """Uploads and objects of another owner do not exist."""
    upload = begin(store)
    calls: list[Callable[[], object]] = [
        lambda: store.get_upload(owner="bob", upload_id=upload.id),
        lambda: store.complete_upload(owner="bob", upload_id=upload.id, object_id=upload.id),
        lambda: store.delete_upload(owner="bob", upload_id=upload.id),
        lambda: store.get_object(owner="bob", object_id=upload.id),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()
    complete(store, upload)
    with pytest.raises(NotFound):
        store.get_object(owner="bob", object_id=upload.id)
    assert store.list_uploads(owner="bob", page_size=10, page_token="") == ([], "")


def test_the_same_request_gives_the_same_upload(store: JobStore) -> None:
    """A repeat gives the upload, other files are ALREADY_EXISTS, a deleted upload is UPLOAD_DELETED."""
    upload = begin(store, request_id="one")
    assert begin(store, request_id="one") == upload
    with pytest.raises(AlreadyExists):
        begin(store, request_id="one", files=FILES[:1])
    store.delete_upload(owner="local", upload_id=upload.id)
    with pytest.raises(WrongState) as refused:
        begin(store, request_id="one")
    assert refused.value.reason == "UPLOAD_DELETED"


def test_bytes_that_the_owner_has_are_not_sent_again(store: JobStore) -> None:
    """The same files, in any order, are complete at once; another owner's, or other paths, are not."""
    first = complete(store, begin(store))
    again = begin(store, files=FILES[::-1])
    assert (again.state, again.object_id) == (UploadState.COMPLETE, first.object_id)
    assert begin(store, owner="bob").state is UploadState.OPEN
    renamed = (replace(FILES[0], path="c"), FILES[1])
    assert begin(store, files=renamed).state is UploadState.OPEN


def test_uploads_are_listed_newest_first(store: JobStore) -> None:
    """Pages of uploads, open and complete."""
    ids = [begin(store, files=(replace(FILES[0], size=size),)).id for size in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page, token = store.list_uploads(owner="local", page_size=2, page_token=token)
        seen += [upload.id for upload in page]
        if not token:
            break
    assert seen == ids[::-1]


def test_a_deleted_upload_is_garbage(store: JobStore) -> None:
    """Its bytes may go, named file by file; a complete one stays."""
    upload = begin(store)
    store.delete_upload(owner="local", upload_id=upload.id)
    with pytest.raises(NotFound):
        store.get_upload(owner="local", upload_id=upload.id)
    assert set(store.list_garbage()) == {upload.prefix + file.path for file in upload.files}
    for prefix in store.list_garbage():
        store.forget_garbage(prefix)
    assert store.list_garbage() == []
    done = complete(store, begin(store))
    with pytest.raises(WrongState):
        store.delete_upload(owner="local", upload_id=done.id)


def test_late_uploads_expire_and_others_stay(store: JobStore) -> None:
    """Only what is open and past its time goes."""
    late, young = begin(store, lifetime=-1.0), begin(store)
    done = complete(store, begin(store, files=FILES[:1], lifetime=-1.0))
    store.expire_uploads()
    uploads, _ = store.list_uploads(owner="local", page_size=10, page_token="")
    assert [upload.id for upload in uploads] == [done.id, young.id]
    assert set(store.list_garbage()) == {late.prefix + file.path for file in late.files}


def test_an_object_stays_while_a_job_needs_it(open_store: Callable[..., JobStore]) -> None:
    """An unfinished job keeps its dataset past its time; after the job's end it goes with its uploads."""
    store = open_store(object_lifetime=timedelta(0))
    done = complete(store, begin(store))
    create(store, dataset=DatasetRef(uri=f"objects/{done.object_id}"))
    store.expire_objects()
    assert store.get_object(owner="local", object_id=done.id) == FILES
    job = lease(store)
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    store.expire_objects()
    with pytest.raises(NotFound):
        store.get_object(owner="local", object_id=done.id)
    with pytest.raises(NotFound):
        store.get_upload(owner="local", upload_id=done.id)
    assert f"objects/local/{done.id}/" in store.list_garbage()


def test_a_model_stays_beside_its_dataset(open_store: Callable[..., JobStore]) -> None:
    """Both objects of an unfinished job are kept; when it is done both may go, and one that is used stays."""
    store = open_store(object_lifetime=timedelta(0))
    dataset, model = complete(store, begin(store)), complete(store, begin(store, files=FILES[:1]))
    uses = {
        "dataset": DatasetRef(uri=f"objects/{dataset.id}"),
        "model": ModelRef(uri=f"objects/{model.id}"),
    }
    create(store, **uses)
    create(store, model=uses["model"])
    store.expire_objects()
    job = lease(store)
    assert job.spec.model == uses["model"]
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    store.expire_objects()
    with pytest.raises(NotFound):
        store.get_object(owner="local", object_id=dataset.id)
    assert store.get_object(owner="local", object_id=model.id) == FILES[:1]
    job = lease(store)
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    store.expire_objects()
    with pytest.raises(NotFound):
        store.get_object(owner="local", object_id=model.id)


def test_a_job_without_its_model_is_not_queued(store: JobStore) -> None:
    """Another owner's model refuses the job, naming the model, and leaves nothing."""
    mine, other = complete(store, begin(store)), complete(store, begin(store, owner="alice"))
    with pytest.raises(InvalidRequest) as refused:
        create(
            store,
            dataset=DatasetRef(uri=f"objects/{mine.id}"),
            model=ModelRef(uri=f"objects/{other.id}"),
        )
    assert refused.value.violations[0].field == "job.model.uri"
    assert sum(store.count_by_state().values()) == 0


def test_each_use_begins_the_lifetime_anew(store: JobStore) -> None:
    """A job, its end, and an upload of the same files are uses; the upload shows the object's time."""
    upload = complete(store, begin(store))

    def expire_time() -> object:
        return store.get_upload(owner="local", upload_id=upload.id).expire_time

    times = [expire_time()]
    create(store, dataset=DatasetRef(uri=f"objects/{upload.object_id}"))
    times.append(expire_time())
    job = lease(store)
    store.finish_job(job_id=job.id, attempt=1, result=RESULT)
    times.append(expire_time())
    begin(store)
    times.append(expire_time())
    assert times == sorted(set(times))
    assert times[0] == upload.expire_time


@pytest.mark.parametrize("owner", ["local", "bob"])
def test_a_job_without_its_dataset_is_not_queued(store: JobStore, owner: str) -> None:
    """An object that is gone, or another owner's, refuses the job and leaves nothing."""
    upload = complete(store, begin(store, owner="alice"))
    object_id = "0123" if owner == "local" else upload.object_id
    with pytest.raises(InvalidRequest) as refused:
        create(store, owner=owner, request_id="one", dataset=DatasetRef(uri=f"objects/{object_id}"))
    assert refused.value.violations[0].field == "job.dataset.uri"
    assert store.find_request(owner=owner, request_id="one", request_hash="hash") is None
    assert sum(store.count_by_state().values()) == 0
