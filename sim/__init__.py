"""The bit-accurate simulator: the reference for every back end."""
