"""Other servers with the same two networks, each used as its documentation shows, in an environment of their own."""

# Names in a peer's environment: the network, where the weights of `shapes` lie, and the port.
MODEL = "PEER_MODEL"
SHAPES_WEIGHTS = "PEER_SHAPES_WEIGHTS"
PORT = "PEER_PORT"
