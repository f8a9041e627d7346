"""Amaranth accelerator blocks."""
