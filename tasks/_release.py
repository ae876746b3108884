"""Makes the run of a release in MLflow before stages that run side by side look for it: each would make one of its own.

python -m tasks._release [--params FILE]
"""

from iadr1.params import Params
from tasks import _tracking
from tasks._run import Workspace, run_stage


def main(params: Params, work: Workspace) -> None:
    """Find the run of the release, or make it."""
    _tracking._choose_experiment(_tracking.experiment_name(work))
    _tracking._release_run(work, _tracking.lineage_of(work))


if __name__ == "__main__":
    run_stage("_release", main)
