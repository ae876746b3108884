"""PostgreSQL, MLflow, Prefect and an S3 server as processes on loopback: docs/infrastructure.md."""
