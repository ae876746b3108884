# MLflow's and Prefect's servers; and what decides on models and data without the training stack.
#   docker build -f infra/images/control.Dockerfile -t iadr1:control .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/iadr1
COPY requirements/cpu.txt infra/images/control.txt ./
RUN /opt/iadr1/bin/pip install --no-cache-dir --constraint cpu.txt --requirement control.txt

FROM python:3.11.14-slim-bookworm
# git: DVC reads the commit that a result was made from. Debian keeps no old versions, so none can be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home iadr1 \
    && install --directory --owner=iadr1 --group=iadr1 /workspace
COPY --from=build /opt/iadr1 /opt/iadr1
COPY infra/config/accounts.ini /etc/mlflow/accounts.ini
ENV PATH=/opt/iadr1/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=1 \
    DVC_STUDIO_OFFLINE=true \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    ITERATIVE_DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ENABLE_AI_GATEWAY=false \
    MLFLOW_MODEL_CATALOG_URI="" \
    MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    VLLM_NO_USAGE_STATS=1 \
    WANDB_MODE=disabled
USER 10001:10001
WORKDIR /workspace
CMD ["python", "--version"]
