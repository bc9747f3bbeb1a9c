"""Tensors and pixels; knows no transport and no store."""
