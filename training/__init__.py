"""Training: makes encoders and judges them."""
