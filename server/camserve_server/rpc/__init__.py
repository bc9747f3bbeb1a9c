"""The last layer that sees protobuf."""
