"""Commands beside `qcompile MODEL.onnx`: one module each, listed in `cli.COMMANDS`."""
