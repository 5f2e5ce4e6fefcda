"""The way of a batch from a source to every sink, and the ledger of it."""
