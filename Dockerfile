# The image of `keyserver`: `docker run … serve` (the default), `work`, `migrate`, or any other of its commands.
FROM docker.io/library/python:3.13-slim-trixie AS python

FROM python AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The environment that is shipped has no pip of its own: the builder's installs into it.
RUN python -m venv --without-pip /opt/keyserver
COPY requirements/base.txt requirements/
RUN python -m pip --python /opt/keyserver/bin/python install --only-binary=:all: --require-hashes -r requirements/base.txt
COPY requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/build \
    && python -m pip --python /opt/build/bin/python install --only-binary=:all: --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY alembic alembic
COPY src src
RUN /opt/build/bin/python -m hatchling build --target wheel --directory dist \
    && python -m pip --python /opt/keyserver/bin/python install --no-deps --no-index dist/keyserver-*.whl
# Compiled once, here: nobody may write beside the sources at run time. The files never change, so they are not
# compared with their sources at every start either.
RUN /opt/keyserver/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/keyserver/lib

FROM python
LABEL org.opencontainers.image.title="crypto-key-server" \
      org.opencontainers.image.description="Deposit addresses, charges and a double-entry ledger over REST"
RUN groupadd --system --gid 10001 keyserver \
    && useradd --system --uid 10001 --gid keyserver --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin keyserver
COPY --from=builder /opt/keyserver /opt/keyserver
# Charges that the database could not be told of yet are kept here; they must outlive the container.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/keyserver
ENV PATH=/opt/keyserver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=3100 \
    KEYSERVER_DATA_DIR=/var/lib/keyserver
VOLUME /var/lib/keyserver
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 3100
# For `serve`; a container that runs `work` has no port and switches it off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-IS", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/chains'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["keyserver"]
CMD ["serve"]
