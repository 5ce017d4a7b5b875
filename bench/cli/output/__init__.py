"""How results are printed: tables, progress, and files for other programs."""
