"""How operators become ONNX nodes, one module for each family; rows in `exporter/table.py`.

Every function returns the name of the operator's real-valued result, before its activation.
"""
