"""The lowest room: errors, names, digests, keyed noise and small value types that every other room may use."""
