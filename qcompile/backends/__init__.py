"""Back ends: integer graph in, files out."""
