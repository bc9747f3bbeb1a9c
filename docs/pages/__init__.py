"""Makes docs/reference, the pages that the protos tell."""
