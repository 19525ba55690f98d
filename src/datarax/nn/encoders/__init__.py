"""Small encoders, from raw fields to feature vectors: pictures, points, texts, sounds, arrays.

Dropout is on in a call that gets a `rng_key`, and off without.
`encoder.set_attributes(dtype=jnp.bfloat16)` has it compute in bfloat16, its parameters float32.
"""

from datarax.nn.encoders.arrays import SequenceEncoder, VectorEncoder
from datarax.nn.encoders.image import ImageEncoder
from datarax.nn.encoders.points import PointEncoder
from datarax.nn.encoders.sound import SoundEncoder
from datarax.nn.encoders.text import TextEncoder, TokenEncoder

__all__ = [
    "ImageEncoder",
    "PointEncoder",
    "SequenceEncoder",
    "SoundEncoder",
    "TextEncoder",
    "TokenEncoder",
    "VectorEncoder",
]
