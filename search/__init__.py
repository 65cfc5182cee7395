"""Search: the engine that the command line, the API, the UI and evaluation share."""
