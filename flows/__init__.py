"""When and in which order stages run; a flow calls commands and holds no logic that a stage could hold."""

import os
import sys

# Read by Prefect when it is imported, which is after this. The embedded server needs longer than the default 20 s on a slow machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "600")
os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")
# `python -m flows.…` looks for its module: a person reads the commands' own output then, and Prefect's records go to its server alone.
if sys.argv[:1] == ["-m"]:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
