"""This package's own architectures; every module that lies here is found and imported by bench.nets."""
