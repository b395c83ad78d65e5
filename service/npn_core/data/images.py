"""Encoded images to pixels: PNG and JPEG alone, of one size, checked before they are unpacked."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .archive import Array, refuse

FORMATS = ("PNG", "JPEG")  # no other decoder is ever tried
MAX_IMAGE_BYTES = 16 << 20  # encoded
MAX_PIXELS = 1 << 24
_PNG_DEPTH = 24  # where the header, always the first chunk, says the bits of a channel

# Modes that are read.  A palette and single bits become what they stand for, and nothing is lost; transparency,
# CMYK and more than 8 bits would be, and are refused.
_CHANNELS = {"L": 1, "RGB": 3}
_CONVERTED = {"1": "L", "P": "RGB"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShape:
    """Channels (1 grey, 3 RGB), height and width in pixels."""

    channels: int
    height: int
    width: int


def image_shape(data: bytes, where: str) -> ImageShape:
    """Shape of an image from its header; raises InvalidInput, which names it by `where`."""
    with _open(data, where) as image:
        return _shape(image, data, where)


def decode(data: bytes, expected: ImageShape, where: str) -> Array:
    """uint8 (C,H,W); raises InvalidInput where the image is damaged or of another shape than `expected`."""
    with _open(data, where) as image:
        shape = _shape(image, data, where)
        if shape != expected:
            raise refuse(
                "DATASET_SHAPES",
                f"{where} has {_words(shape)}, the first one {_words(expected)}; all must have the same size and mode",
            )
        try:
            mode = _CONVERTED.get(image.mode)
            pixels = np.asarray(image if mode is None else image.convert(mode))
        except MemoryError:
            raise
        except Exception:  # the decoders raise whatever damaged bytes lead them into
            raise _damaged(where) from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(data: bytes, where: str) -> Image.Image:
    """Parse the header; no pixel is unpacked yet."""
    if len(data) > MAX_IMAGE_BYTES:
        raise refuse("DATASET_TOO_LARGE", f"{where} has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,}")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise refuse("DATASET_TOO_LARGE", f"{where} has more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception:  # as above
        raise _damaged(where) from None


def _shape(image: Image.Image, data: bytes, where: str) -> ImageShape:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise refuse("DATASET_TOO_LARGE", f"{where} has {width} x {height} pixels; at most {MAX_PIXELS:,}")
    if image.format == "PNG" and data[_PNG_DEPTH] > 8:  # of which Pillow would drop the lower byte
        raise refuse("DATASET_IMAGES", f"{where} has {data[_PNG_DEPTH]} bits per channel; images must have 8")
    channels = _CHANNELS.get(_CONVERTED.get(image.mode, image.mode))
    if channels is None or "transparency" in image.info:
        raise refuse(
            "DATASET_IMAGES",
            f"{where} has mode {image.mode}{' with transparency' if channels else ''}; "
            "images must be grey or RGB with 8 bits per channel",
        )
    return ImageShape(channels=channels, height=height, width=width)


def _damaged(where: str) -> Exception:
    return refuse("DATASET_IMAGES", f"{where} is no intact {' or '.join(FORMATS)} image")


def _words(shape: ImageShape) -> str:
    return f"{shape.width} x {shape.height} pixels in {shape.channels} channel{'s' * (shape.channels > 1)}"
