"""Tests of the arithmetic contract."""
