"""The stages of the pipeline, each run as `python -m tasks.<stage>`."""
