"""Network architectures of our own, named by `builder` in a `model.toml`."""
