"""Namespaces, peers and load for benchmarks that compare whole gateways."""
