"""The command pgb."""
