"""A better encoder from one's own documents, without labels."""
