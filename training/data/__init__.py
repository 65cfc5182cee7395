"""Training data: rows in one schema per task, read, checked, cleaned and counted."""
