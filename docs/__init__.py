"""Pages that are made from the protos, the settings and the error catalogue."""
