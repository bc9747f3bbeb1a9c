"""How the bundled model is made: procedural scenes, training, and the figures written beside the weights."""
