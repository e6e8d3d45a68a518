# Two stages: one with a compiler builds and installs, the image that runs gets the result only: under 200 MB.
# docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag haproxy-py:0.1.0 .
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY haproxy_py haproxy_py
COPY config/example.yaml config/example-kubernetes.yaml config/
RUN pip wheel --no-cache-dir --wheel-dir /wheels .
COPY config/docker/trim.py /trim.py
RUN python -m venv --without-pip /opt/haproxy-py \
    && pip --python /opt/haproxy-py/bin/python install --no-cache-dir --no-compile --no-index --find-links /wheels haproxy-py \
    && /opt/haproxy-py/bin/python /trim.py \
    && find /opt/haproxy-py -name "*.so" -exec strip --strip-unneeded {} + \
    && /opt/haproxy-py/bin/python -m compileall -q /opt/haproxy-py/lib

FROM python:3.11-slim-bookworm
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="haproxy-py" \
      org.opencontainers.image.description="A reverse proxy for Node-RED instances in High Availability mode" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --system --uid 10001 --no-create-home haproxy-py
COPY --from=build /opt/haproxy-py /opt/haproxy-py
ENV PATH=/opt/haproxy-py/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
# Traffic on 8080, operators on 9090; mount the configuration at this path.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# For docker and compose; Kubernetes has probes of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/livez', timeout=3)"]
# Runs as process 1: it obeys SIGTERM itself, and its children are its own.
ENTRYPOINT ["haproxy-py"]
CMD ["run", "--config", "/etc/haproxy-py/config.yaml"]
