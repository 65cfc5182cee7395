"""Encoders: texts in any language to unit vectors in one space."""

from search.encoder.encoding import Encoder
from search.encoder.loading import load_encoder

__all__ = ["Encoder", "load_encoder"]
