"""One converter module for each family of ONNX operators; `importer/table.py` lists them."""
