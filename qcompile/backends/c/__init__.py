"""The C back end: one portable C99 file with packed weights and a planned arena."""
