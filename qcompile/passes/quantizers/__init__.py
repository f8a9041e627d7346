"""Quantizers of weights, one file each; `qcompile.passes.weight_quantizers` lists them."""
