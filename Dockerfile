# Two stages: one with a compiler builds the wheel, the image that runs has neither compiler nor headers.
FROM python:3.11-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY haproxy_py haproxy_py
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.11-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels haproxy-py \
    && rm -rf /wheels \
    && useradd --system --uid 10001 haproxy-py
USER 10001
# Traffic on 8080, operators on 9090; mount the configuration at this path.
EXPOSE 8080 9090
ENTRYPOINT ["haproxy-py"]
CMD ["run", "--config", "/etc/haproxy-py/config.yaml"]
