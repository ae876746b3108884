# vLLM behind the OpenAI protocol: what the evaluation and the inspection ask when the environment names its address.
#   docker build -f infra/images/eval.Dockerfile -t iadr1:eval .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/iadr1
COPY requirements/gpu.txt infra/images/eval.txt ./
RUN /opt/iadr1/bin/pip install --no-cache-dir --constraint gpu.txt --requirement eval.txt

FROM python:3.11.14-slim-bookworm
# gcc: Triton builds the launchers of its kernels. Debian keeps no old versions, so none can be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home iadr1 \
    && install --directory --owner=iadr1 --group=iadr1 /workspace
COPY --from=build /opt/iadr1 /opt/iadr1
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
EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
