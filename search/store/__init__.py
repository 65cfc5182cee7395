"""Vector stores behind one protocol: Qdrant Edge (embedded) and a Qdrant server."""
