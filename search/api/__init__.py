"""The HTTP API: `search serve`."""
