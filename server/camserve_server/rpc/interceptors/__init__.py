"""One file per link of the chain."""
