# The server.  Build and try it with scripts/build_image, or any builder of Dockerfiles:
#   docker build -t npn-server .
#   docker build -t npn-server:gpu --build-arg TORCH_FROM="--index-url https://download.pytorch.org/whl/cu130" .
# BASE is any Debian with python3 3.11 or later and its venv module.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# Where torch comes from: the index of CPU builds, a tenth of the size of the default one.
ARG TORCH_FROM="--index-url https://download.pytorch.org/whl/cpu"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/npn
WORKDIR /source
# What changes seldom comes first: a change of the code builds from here on alone.
COPY constraints.txt .
RUN /opt/npn/bin/pip install --constraint constraints.txt ${TORCH_FROM} torch
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY client client
COPY service service
RUN /opt/npn/bin/pip install --constraint constraints.txt ".[service,onnx]" \
    && /opt/npn/bin/pip uninstall --yes pip

FROM ${BASE}
LABEL org.opencontainers.image.title="npn-server" \
      org.opencontainers.image.description="Compresses and grows neural networks on a budget" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/npn /opt/npn
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/npn --shell /usr/sbin/nologin npn \
    && install -d -o npn -g npn -m 0700 /var/lib/npn
ENV PATH=/opt/npn/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    NPN_LISTEN=0.0.0.0:50051 \
    NPN_METRICS_LISTEN=0.0.0.0:9464 \
    NPN_DATA_DIR=/var/lib/npn/data \
    NPN_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/npn
VOLUME /var/lib/npn
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["npn-server"]
