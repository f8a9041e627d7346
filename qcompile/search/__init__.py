"""Bit widths by measured sensitivity, in place of one width for all layers."""
