"""Queries made for documents that have none."""
