"""How files of images are read, one format a module."""
