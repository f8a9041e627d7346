"""`report.html`: one file that shows a compilation to people; a module for each picture.

Modules compute what is drawn where, as frozen dataclasses; the templates in `templates/report/`
draw it.
"""
