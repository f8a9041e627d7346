"""The report: what each layer costs, and what is left of the accuracy."""
