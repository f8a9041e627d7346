"""Tests of qcompile."""
