"""Redis and object storage, one key family per file."""
