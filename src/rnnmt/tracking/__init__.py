"""MLflow: a live view of training, which can be made again from DVC's outputs at any time.

The only package that imports mlflow, which takes two seconds to load: within functions, where it
may turn out that there is nothing to do.
"""

import os

# Read by mlflow at its import, so set before any module of this package can import it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
