"""Rows that people query."""
