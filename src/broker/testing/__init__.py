"""Contract suites and fakes that every implementation of a port passes."""
