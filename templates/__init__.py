"""Jinja2 templates of everything the compiler writes."""
