"""Images in Parquet: what Hugging Face's layout gives, and files that are damaged, lie or would unpack to much."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from npn_core.config import Preprocessing
from npn_core.data import Room, inspect_dataset, load_dataset, load_test, open_archive
from npn_core.data.archive import Archive
from npn_core.data.pages import Chunk, check_pages, read_footer
from npn_core.errors import InvalidInput

CIFAR = Path(__file__).parents[4] / "shared" / "data" / "cifar10"


def pixels(n: int, *, seed: int = 1, size: tuple[int, ...] = (6, 5, 3)) -> NDArray[np.uint8]:
    """Random images (n,H,W,C) or (n,H,W)."""
    return np.random.default_rng(seed).integers(0, 256, (n, *size), dtype=np.uint8)


def encode(image: Image.Image | NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def table(images: list[bytes | None], labels: list[int | None] | None, *, column: str = "img") -> pa.Table:
    """Rows in the layout of Hugging Face's datasets."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": data, "path": f"{at}.png"} for at, data in enumerate(images)]
    columns = {column: pa.array(rows, kind)}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    return pa.table(columns)


def whole_of(archive: Archive, name: str) -> NDArray[Any]:
    """The array in one piece."""
    return np.concatenate(list(archive.blocks(name)))


def write(folder: Path, name: str = "train-00000-of-00001.parquet", n: int = 20, **options: Any) -> Path:
    """A file of n random images with three classes."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = options.pop("seed", 1)
    images: list[bytes | None] = [encode(one) for one in pixels(n, seed=seed)]
    pq.write_table(table(images, [at % 3 for at in range(n)]), folder / name, **options)
    return folder / name


def dataset(folder: Path) -> Path:
    """Two training shards, a test file, and what else lies in such a folder."""
    data = folder / "data"
    write(data, "train-00000-of-00002.parquet", 20, row_group_size=7)
    write(data, "train-00001-of-00002.parquet", 10, seed=2)
    write(data, "test-00000-of-00001.parquet", 6, seed=3)
    (folder / "README.md").write_text("a dataset")
    return folder


def refusal(path: Path, *, read: bool = False) -> InvalidInput:
    """The error that inspecting the dataset gives, or else reading what inspection has passed."""
    if read:
        inspect_dataset(path)
    with pytest.raises(InvalidInput) as caught:
        load_dataset(path, layout="", preprocessing=Preprocessing(), seed=1) if read else inspect_dataset(
            path
        )
    assert caught.value.field == "dataset.uri"
    assert str(path.parent) not in caught.value.message
    return caught.value


def test_a_folder_of_shards(tmp_path: Path) -> None:
    """Splits go by file name, shards in order, pixels exactly as encoded, labels with their images."""
    folder = dataset(tmp_path / "set")
    info = inspect_dataset(folder)
    assert (info.train_samples, info.validation_samples, info.test_samples) == (27, 3, 6)
    assert (info.input_shape, info.dtype, info.target, info.classes) == ((3, 6, 5), "uint8", "classes", 3)
    assert info.notes == ()
    archive = open_archive(folder)
    expected = np.concatenate([pixels(20, seed=1), pixels(10, seed=2)]).transpose(0, 3, 1, 2)
    assert np.array_equal(whole_of(archive, "x_train"), expected)
    assert whole_of(archive, "y_train").tolist() == [
        *(at % 3 for at in range(20)),
        *(at % 3 for at in range(10)),
    ]
    data = load_dataset(folder, layout="", preprocessing=Preprocessing(), seed=1)
    assert data.preprocessing.scale == 1 / 255
    test = load_test(folder, layout="", preprocessing=data.preprocessing)
    assert np.array_equal(test.test.x[0].numpy(), pixels(6, seed=3).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["validation-00000-of-00001.parquet", "valid-0.parquet", "val.parquet"])
def test_validation_files(tmp_path: Path, name: str) -> None:
    """Validation files are the validation split, and nothing is held out."""
    folder = dataset(tmp_path / "set")
    write(folder / "data", name, 4)
    info = inspect_dataset(folder)
    assert (info.train_samples, info.validation_samples, info.test_samples) == (30, 4, 6)


@pytest.mark.parametrize("as_folder", [True, False])
def test_one_file(tmp_path: Path, as_folder: bool) -> None:
    """Without test files one training row in ten is the test split; no row is in both, and a note says so."""
    file = write(tmp_path / "set", "anything.parquet", 25)
    path = file.parent if as_folder else file
    info = inspect_dataset(path)
    assert (info.train_samples, info.validation_samples, info.test_samples) == (21, 2, 2)
    assert "one training row in 10" in info.notes[0]
    archive, whole = open_archive(path), pixels(25).transpose(0, 3, 1, 2)
    assert np.array_equal(whole_of(archive, "x_test"), whole[[9, 19]])
    assert whole_of(archive, "y_test").tolist() == [9 % 3, 19 % 3]
    assert np.array_equal(whole_of(archive, "x_train"), np.delete(whole, [9, 19], axis=0))
    assert whole_of(archive, "y_train").tolist() == [at % 3 for at in range(25) if at not in (9, 19)]


def test_columns(tmp_path: Path) -> None:
    """The image column is found by its type, named image among several; others are noted; labels may be absent."""
    images: list[bytes | None] = [encode(one) for one in pixels(20, size=(4, 4))]
    rows = table(images, None, column="image")
    rows = rows.append_column("mask", rows.column("image")).append_column("id", pa.array(range(20)))
    pq.write_table(rows, tmp_path / "a.parquet")
    info = inspect_dataset(tmp_path / "a.parquet")
    assert (info.input_shape, info.target, info.classes) == ((1, 4, 4), "none", 0)
    assert info.notes[-1] == "ignored columns: 'id', 'mask'"


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_what_writers_choose(tmp_path: Path, compression: str, version: str, use_dictionary: bool) -> None:
    """Codecs, page versions and dictionaries make no difference."""
    path = write(
        tmp_path,
        compression=compression,
        data_page_version=version,
        use_dictionary=use_dictionary,
        data_page_size=1000,
        write_batch_size=4,
    )
    assert len(np.unique(whole_of(open_archive(path), "x_train"))) > 200


def deep_png() -> bytes:
    """An RGB image with 16 bits per channel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, rows = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0), (b"\0" + bytes(30)) * 6
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def modes() -> dict[str, tuple[bytes, bytes | None]]:
    """Encoded images by mode, and what they must be read as."""
    rgb = Image.fromarray(pixels(1)[0])
    grey = Image.fromarray(pixels(1, size=(6, 5))[0])
    palette, bits = rgb.convert("P", palette=Image.Palette.ADAPTIVE), grey.convert("1")
    return {
        "palette": (encode(palette), encode(palette.convert("RGB"))),
        "bits": (encode(bits), encode(bits.convert("L"))),
        "jpeg": (jpeg := encode(rgb, "JPEG"), encode(Image.open(io.BytesIO(jpeg)))),
        "alpha": (encode(rgb.convert("RGBA")), None),
        "grey alpha": (encode(grey.convert("LA")), None),
        "transparent palette": (encode(palette, transparency=0), None),
        "16 bits": (encode(Image.fromarray(pixels(1, size=(6, 5))[0].astype(np.uint16) * 256)), None),
        "16 bits in colour": (deep_png(), None),
        "cmyk": (encode(rgb.convert("CMYK"), "JPEG"), None),
        "gif": (encode(palette, "GIF"), None),
        "bmp": (encode(rgb, "BMP"), None),
        "tiff": (encode(rgb, "TIFF"), None),
        "no image": (b"hello", None),
        "nothing": (b"", None),
    }


@pytest.mark.parametrize("mode", modes())
def test_modes(tmp_path: Path, mode: str) -> None:
    """A palette and single bits become what they stand for; what would lose something, or is neither PNG nor
    JPEG, is refused by inspection.
    """
    given, expected = modes()[mode]
    path = tmp_path / "a.parquet"
    pq.write_table(table([given] * 20, [at % 2 for at in range(20)]), path)
    if expected is None:
        assert refusal(path).reason == "DATASET_IMAGES"
        return
    wanted = np.asarray(Image.open(io.BytesIO(expected)))
    wanted = wanted[None] if wanted.ndim == 2 else wanted.transpose(2, 0, 1)
    assert np.array_equal(whole_of(open_archive(path), "x_train")[5], wanted)


def other_images() -> dict[str, tuple[bytes | None, str, str]]:
    """What may stand at the place of one image, the reason to refuse it, and words of the message."""
    good = encode(pixels(1)[0])
    jpeg = encode(pixels(1, size=(64, 64, 3))[0], "JPEG")
    broken = bytearray(good)
    broken[good.index(b"IDAT") + 8] ^= 0xFF
    return {
        "another size": (
            encode(pixels(1, size=(6, 6, 3))[0]),
            "DATASET_SHAPES",
            "image 7 of train has 6 x 6",
        ),
        "grey": (encode(pixels(1, size=(6, 5))[0]), "DATASET_SHAPES", "1 channel, the first one"),
        "cut": (good[:-30], "DATASET_IMAGES", "image 7 of train is no intact"),
        "cut jpeg": (jpeg[:200], "DATASET_IMAGES", "image 7"),
        "changed": (bytes(broken), "DATASET_IMAGES", "image 7"),
        "a path alone": (None, "DATASET_IMAGES", "row 7 has no bytes"),
    }


@pytest.mark.parametrize("case", other_images())
def test_one_bad_image(tmp_path: Path, case: str) -> None:
    """Inspection looks at the first image alone and finds nothing; the read that meets a bad one names it."""
    data, reason, words = other_images()[case]
    images: list[bytes | None] = [encode(one) for one in pixels(20)]
    images[7] = data
    pq.write_table(table(images, [at % 3 for at in range(20)]), tmp_path / "train-0.parquet")
    write(tmp_path, "test-0.parquet", 5)
    error = refusal(tmp_path, read=True)
    assert error.reason == reason
    assert words in error.message


def test_decompression_bomb(tmp_path: Path) -> None:
    """A small file whose header promises many pixels is refused before one is unpacked."""
    header = bytearray(encode(pixels(1)[0]))
    for side in (5000, 20_000, 100_000):
        header[16:24] = side.to_bytes(4, "big") * 2
        header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
        pq.write_table(table([bytes(header)] * 20, [0, 1] * 10), tmp_path / "a.parquet")
        assert refusal(tmp_path / "a.parquet").reason in {"DATASET_TOO_LARGE", "DATASET_IMAGES"}


def test_large_image_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoded bytes of an image are bounded."""
    monkeypatch.setattr("npn_core.data.images.MAX_IMAGE_BYTES", 50)
    assert refusal(write(tmp_path)).reason == "DATASET_TOO_LARGE"


def test_dictionary_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One large value that a dictionary repeats in every row is refused by its page, before it is repeated."""
    monkeypatch.setattr("npn_core.data.pages.MAX_DICTIONARY_BYTES", 1 << 16)
    path, value = tmp_path / "a.parquet", np.random.default_rng(1).bytes(1 << 17)
    pq.write_table(table([value] * 100, [0, 1] * 50), path)
    assert path.stat().st_size < 1 << 18
    error = refusal(path)
    assert error.reason == "DATASET_TOO_LARGE"
    assert "dictionary" in error.message


def test_many_rows(tmp_path: Path) -> None:
    """Rows that take no space in a file are bounded by the footer's number."""
    rows = 1 << 10
    empty = pa.array([None] * rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    block = pa.record_batch({"img": empty, "label": pa.array([1] * rows)})
    with pq.ParquetWriter(tmp_path / "a.parquet", block.schema) as writer:
        writer.write_table(pa.Table.from_batches([block] * ((1 << 14) + 1)), row_group_size=1 << 25)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    assert refusal(tmp_path / "a.parquet").reason == "DATASET_TOO_LARGE"


def test_too_many_pixels(tmp_path: Path) -> None:
    """What all images come to is bounded before the first is unpacked."""
    one = encode(np.zeros((4000, 4000), np.uint8))
    path = tmp_path / "a.parquet"
    pq.write_table(table([one] * 100, [0, 1] * 50), path)
    with pytest.raises(InvalidInput, match=r"1,600,000,800 bytes decoded; at most 1,000,000,000") as caught:
        load_dataset(path, layout="", preprocessing=Preprocessing(), seed=1, room=Room(memory=0, disk=10**9))
    assert caught.value.reason == "DATASET_TOO_LARGE"


@pytest.mark.parametrize(
    ("labels", "reason", "words"),
    [
        ([0, 1, None, 1, 0] * 4, "DATASET_LABELS", "without a label"),
        ([0, 1, -1, 1, 0] * 4, "DATASET_LABELS", "from -1 to 1"),
        ([0] * 20, "DATASET_LABELS", "two classes"),
        ([0.5] * 20, "DATASET_DTYPE", "double"),
        (["cat", "dog"] * 10, "DATASET_DTYPE", "string"),
    ],
)
def test_labels(tmp_path: Path, labels: list[Any], reason: str, words: str) -> None:
    """Labels are integers from 0, in every row."""
    images: list[bytes | None] = [encode(one) for one in pixels(20)]
    rows = table(images, None).append_column("label", pa.array(labels))
    pq.write_table(rows, tmp_path / "a.parquet")
    error = refusal(tmp_path / "a.parquet")
    assert error.reason == reason
    assert words in error.message


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    """Files of no split, without training files, in several folders, or with and without labels are refused."""
    write(tmp_path / "a", "train-0.parquet")
    write(tmp_path / "a", "other-0.parquet")
    assert "'other-0.parquet' names no split" in refusal(tmp_path / "a").message
    write(tmp_path / "b", "test-0.parquet")
    write(tmp_path / "b", "test-1.parquet")
    assert "lacks train" in refusal(tmp_path / "b").message
    write(tmp_path / "a" / "more", "train-0.parquet")
    assert "several folders" in refusal(tmp_path / "a").message
    write(tmp_path / "c", "train-0.parquet")
    images: list[bytes | None] = [encode(one) for one in pixels(20)]
    pq.write_table(table(images, None), tmp_path / "c" / "test-0.parquet")
    assert "have none" in refusal(tmp_path / "c").message


@pytest.mark.parametrize(
    "columns",
    [
        {"img": pa.array([b"x"] * 3)},
        {"img": pa.array([{"path": "a.png"}] * 3)},
        {"img": pa.array([{"bytes": "text"}] * 3)},
        {"a": pa.array([{"bytes": b"x"}] * 3), "b": pa.array([{"bytes": b"x"}] * 3)},
        {"a.b": pa.array([{"bytes": b"x"}] * 3)},
        {"img": pa.array([[{"bytes": b"x"}]] * 3)},
    ],
)
def test_no_column_of_images(tmp_path: Path, columns: dict[str, Any]) -> None:
    """Columns of other types are not taken for images."""
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").reason == "DATASET_NAMES"


def test_an_empty_shard_among_others(tmp_path: Path) -> None:
    """It adds nothing, and is not damaged."""
    write(tmp_path, "train-0.parquet", 20)
    empty = pq.read_table(tmp_path / "train-0.parquet").slice(0, 0)
    pq.write_table(empty, tmp_path / "train-1.parquet")
    write(tmp_path, "test-0.parquet", 5)
    assert len(whole_of(open_archive(tmp_path), "x_train")) == 20


def test_no_rows(tmp_path: Path) -> None:
    """An empty table is refused as such."""
    pq.write_table(table([], []), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").reason == "DATASET_EMPTY"


def test_columns_in_another_file(tmp_path: Path) -> None:
    """A footer that points into another file, as summary files do, is refused; nothing is opened."""
    path = write(tmp_path)
    metadata = pq.read_metadata(path)
    metadata.set_file_path(path.name)
    pq.write_metadata(pq.read_schema(path), tmp_path / "a.parquet", metadata_collector=[metadata])
    assert refusal(tmp_path / "a.parquet").reason == "DATASET_NOT_PARQUET"


def page(*sizes: int) -> bytes:
    """A column chunk of one page without contents: its kind and its bytes, unpacked and packed."""
    numbers = b"".join(b"\x15" + zigzag(size) for size in sizes)
    return numbers + b"\x2c\x15\x02\x15\x00\x15\x06\x15\x06\x00\x00"


def zigzag(value: int) -> bytes:
    """A number as Thrift's compact protocol writes it."""
    rest, encoded = value * 2 if value >= 0 else -value * 2 - 1, bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*encoded, rest])


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (page(0, 100, 0), None),
        (page(0, 100, 0) * 5, None),
        (page(0, 1 << 30, 0), "DATASET_TOO_LARGE"),
        (page(2, 1 << 25, 0), "DATASET_TOO_LARGE"),
        (page(0, 100, 7), "DATASET_NOT_PARQUET"),
        (page(0, -100, 0), "DATASET_NOT_PARQUET"),
        (page(0, 100, -20), "DATASET_NOT_PARQUET"),
        (page(0, 100), "DATASET_NOT_PARQUET"),
        (page(0, 100, 0)[:-1], "DATASET_NOT_PARQUET"),
        (b"\x00" * 9, "DATASET_NOT_PARQUET"),
        (b"\x1c" * 900, "DATASET_NOT_PARQUET"),
        (b"\x19\xfc\xff\xff\xff\xff\x0f", "DATASET_NOT_PARQUET"),
        (b"\x15" + b"\xff" * 90, "DATASET_NOT_PARQUET"),
    ],
)
def test_pages(chunk: bytes, reason: str | None) -> None:
    """What a page promises to unpack to is bounded, and so is what malformed headers can make the reader do."""
    file, at = io.BytesIO(b"PAR1" + chunk), Chunk(start=4, length=len(chunk))
    if reason is None:
        check_pages(file, at, "a.parquet")
        return
    with pytest.raises(InvalidInput) as caught:
        check_pages(file, at, "a.parquet")
    assert caught.value.reason == reason


def test_footer_agrees_with_pyarrow(tmp_path: Path) -> None:
    """Rows and the chunks of every column are those that pyarrow finds."""
    path = write(tmp_path, n=50, row_group_size=7, compression="zstd")
    with path.open("rb") as file:
        footer = read_footer(file, path.stat().st_size, path.name)
    metadata = pq.read_metadata(path)
    assert (footer.rows, len(footer.groups)) == (50, metadata.num_row_groups)
    for at, group in enumerate(footer.groups):
        for column, chunk in enumerate(group):
            theirs = metadata.row_group(at).column(column)
            first = theirs.dictionary_page_offset if theirs.has_dictionary_page else theirs.data_page_offset
            assert (chunk.start, chunk.length) == (first, theirs.total_compressed_size)


def test_layout_is_for_arrays(tmp_path: Path) -> None:
    """Encoded images know their axes."""
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(write(tmp_path), layout="NHWC")
    assert (caught.value.field, caught.value.reason) == ("dataset.layout", "DATASET_LAYOUT")


def test_truncated_files(tmp_path: Path) -> None:
    """A file cut at any of many places is refused."""
    whole = write(tmp_path).read_bytes()
    path = tmp_path / "a.parquet"
    for length in range(4, len(whole), 61):
        path.write_bytes(whole[:length])
        assert refusal(path).reason == "DATASET_NOT_PARQUET"


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_flipped_bytes_never_give_another_error(tmp_path: Path, compression: str) -> None:
    """Random damage, half of it in the footer, is refused as InvalidInput, or changes no more than values."""
    whole = write(tmp_path, compression=compression).read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path, rng, refused = tmp_path / "a.parquet", np.random.default_rng(1), 0
    for round_ in range(300):
        damaged = bytearray(whole)
        for position in rng.integers(footer if round_ % 2 else 4, len(whole), 2):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            inspect_dataset(path)
            load_dataset(path, layout="", preprocessing=Preprocessing(), seed=1)
        except InvalidInput:
            refused += 1
    assert refused > 100


@pytest.mark.skipif(not CIFAR.is_dir(), reason="CIFAR-10 as Parquet is not at ../shared/data/cifar10")
def test_cifar10() -> None:
    """The real thing: all splits are found, images are those that Pillow reads, classes are balanced."""
    info = inspect_dataset(CIFAR)
    assert (info.train_samples, info.validation_samples, info.test_samples) == (45_000, 5_000, 10_000)
    assert (info.input_shape, info.dtype, info.classes, info.notes) == ((3, 32, 32), "uint8", 10, ())
    archive = open_archive(CIFAR)
    assert np.bincount(whole_of(archive, "y_train")).tolist() == [5000] * 10
    test = whole_of(archive, "x_test")
    first = pq.read_table(sorted(CIFAR.glob("test-*"))[0], columns=["img"]).slice(9_000, 1)
    encoded = first.to_pylist()[0]["img"]["bytes"]
    assert np.array_equal(test[9_000].transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(encoded))))
