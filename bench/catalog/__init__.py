"""Finding things by name: model cards and their weights, suite files."""
