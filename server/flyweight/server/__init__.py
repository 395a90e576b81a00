"""The inference server: holds every variant of a model, splits traffic between them, measures each."""

import os

# onnxruntime, from 1.29 on, tells its makers of every process and model that it is used for, unless it is
# told not to before it is loaded (its docs/Privacy.md). A server calls nobody whom its operator did not name.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
