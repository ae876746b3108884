# All that a run needs, trainings included: a worker, with GPUs or without. CUDA comes with the packages, so the base is Python alone.
#   docker build -f infra/images/train.Dockerfile --build-arg PROFILE=gpu -t iadr1:gpu .        or PROFILE=cpu -t iadr1:cpu
ARG PROFILE=gpu

FROM python:3.11.14-slim-bookworm AS build
ARG PROFILE
WORKDIR /build
RUN python -m venv /opt/iadr1
COPY requirements/${PROFILE}.txt lock.txt
# uv knows where the builds of torch for CPUs are. --no-deps: the lock is complete, and overrules what two of its packages say of each other.
RUN pip install --no-cache-dir uv==0.13.9 \
    && if [ "$PROFILE" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi \
    && uv pip install --no-cache --python /opt/iadr1/bin/python --no-deps --requirement lock.txt

FROM python:3.11.14-slim-bookworm
# git: DVC reads the commit that a result was made from. gcc: Triton builds the launchers of its kernels. Debian keeps no old versions, so none can be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev \
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
    IADR1_HOME=/workspace \
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
