"""The HDL target: from the integer graph to a streaming accelerator."""
