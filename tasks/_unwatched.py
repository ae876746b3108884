"""Which stages read what their graph does not state, so that DVC cannot see it change: the root's graph names no folder of the user's.

python -m tasks._unwatched DVC.yaml    prints their names, one a line; the parameters are those beside the graph
"""

import sys
from pathlib import Path

from iadr1.errors import Iadr1Error
from iadr1.params import read
from tasks._experiment import files_read


def unwatched(pipeline: Path) -> list[str]:
    """The stages that read files of the user's which are none of their `deps`."""
    reads = files_read(read(pipeline.with_name("params.yaml")))
    stages = read(pipeline)["stages"]
    return [stage for stage, files in reads.items() if stage in stages and not {*files} <= {*stages[stage].get("deps", ())}]


if __name__ == "__main__":
    try:
        print("\n".join(unwatched(Path(sys.argv[1]))))
    except Iadr1Error as error:
        sys.exit(f"unwatched: {error}")
