"""Implementations of the ports, one file a service."""
