"""Suggestive annotation: which images of a pool are worth annotating next."""
