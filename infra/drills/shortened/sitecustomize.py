"""Python runs this at its start where this folder is on PYTHONPATH: boto's waiting times and parts as small as a drill needs them, and no fault."""

import os

if seconds := os.environ.get("IADR1_DRILL_S3_SECONDS"):
    from botocore.config import Config

    Config.OPTION_DEFAULTS.update(connect_timeout=float(seconds), read_timeout=float(seconds))

if size := os.environ.get("IADR1_DRILL_S3_PART"):
    from boto3.s3.transfer import TransferConfig

    TransferConfig.DEFAULTS.update(multipart_threshold=int(size), multipart_chunksize=int(size))
