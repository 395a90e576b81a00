# The server alone: no torch, no compiler, no package cache. Runs as a numeric user with a read-only root.
#
#   docker build -t flyweight .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -p 8001:8001 -p 8002:8002 \
#       -v "$PWD/repository:/models:ro" flyweight
#
# Nothing is written but to /tmp, and there only models that callers upload. Workers (--runtime process) share
# memory without names (memfd_create, sealed), so that they need no --shm-size; Linux 5.3 or later.
#
# Both stages start from the same image: the environment made in the first links to its Python.
FROM python:3.11-slim AS builder

WORKDIR /src
COPY pyproject.toml README.md LICENSE* ./
COPY protos protos
COPY server server
COPY client client
COPY compressor compressor
# The image gets what users get: the wheel, not the source tree. pip stays outside the environment it fills.
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
    && python3 -m venv --without-pip /opt/flyweight \
    && python3 -m pip --python /opt/flyweight/bin/python install --no-cache-dir "$(echo /dist/flyweight-*.whl)[server]"


FROM python:3.11-slim

LABEL org.opencontainers.image.title="flyweight" \
      org.opencontainers.image.description="Serves every variant of a model side by side over gRPC, and measures each." \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=builder /opt/flyweight /opt/flyweight
# Bytecode was written when the packages were installed; the root may be read-only.
# onnxruntime's telemetry, on by default, would want a home folder and a network.
ENV PATH=/opt/flyweight/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /models
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
# 8001: gRPC. 8002: Prometheus metrics.
EXPOSE 8001 8002
# The server answers SIGTERM by turning its health to NOT_SERVING, finishing what it has accepted, and leaving.
STOPSIGNAL SIGTERM
# Asks what a Kubernetes gRPC probe asks. Kubernetes itself ignores this line.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import grpc; from grpc_health.v1 import health_pb2 as m, health_pb2_grpc as s; reply = s.HealthStub(grpc.insecure_channel('127.0.0.1:8001')).Check(m.HealthCheckRequest(), timeout=4); raise SystemExit(reply.status != m.HealthCheckResponse.SERVING)"]
ENTRYPOINT ["flyweight"]
CMD ["serve", "/models", "--host", "0.0.0.0", "--port", "8001", "--metrics-host", "0.0.0.0", "--metrics-port", "8002"]
