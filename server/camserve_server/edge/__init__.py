"""Envoy's configuration, generated from the descriptors."""
