"""qcompile: a hardware-oriented quantization compiler for medical segmentation networks."""

__version__ = "0.1.0"
