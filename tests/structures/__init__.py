"""Small networks that users might send, one for each way in which units are coupled.

`STRUCTURES` are hand-written; `transformers_structures()` builds four from `transformers` configurations, with
random weights and no download.  Every one takes any batch size.
"""

from .convolutions import CONVOLUTIONS
from .features import FEATURES
from .sequences import SEQUENCES
from .structure import Structure

__all__ = ["STRUCTURES", "Structure", "transformers_structures"]

STRUCTURES: tuple[Structure, ...] = (*CONVOLUTIONS, *FEATURES, *SEQUENCES)


def transformers_structures() -> tuple[Structure, ...]:
    """An image encoder, a text encoder, a decoder, a convolutional net; imports transformers."""
    from .library import LIBRARY

    return LIBRARY
