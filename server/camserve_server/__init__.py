"""camserve: image classification that explains itself, over gRPC and REST."""
