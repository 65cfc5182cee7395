"""What an encoder's vocabulary covers, and encoders with a smaller or a larger one."""
