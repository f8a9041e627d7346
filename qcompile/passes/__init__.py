"""The passes of the compiler, one file each; `pipeline.py` lists them in their order."""
