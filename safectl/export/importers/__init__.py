"""Model files of other frameworks as programs: ONNX, Keras and TFLite, without those frameworks."""

from safectl.export.importers.door import import_model

__all__ = ["import_model"]
