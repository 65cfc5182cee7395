# The API, the application and the commands in one image; what it runs is the command: see compose.yaml.
FROM python:3.11-slim-bookworm AS build

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -m venv /opt/panlingua \
    && /opt/panlingua/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
       -c constraints.txt torch
COPY search search
COPY indexer indexer
COPY training training
COPY ui ui
RUN /opt/panlingua/bin/pip install --no-cache-dir -c constraints.txt '.[api,ui,watch]'

FROM python:3.11-slim-bookworm

# pdftotext reads the Arabic and Thai PDFs that the default extractor does not; libgomp is torch's.
RUN apt-get update \
    && apt-get install --no-install-recommends --yes poppler-utils libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home panlingua \
    && install --directory --owner panlingua /data
COPY --from=build /opt/panlingua /opt/panlingua
COPY corpus /opt/panlingua/corpus
ENV PATH=/opt/panlingua/bin:$PATH PANLINGUA_HOME=/data HOME=/tmp PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER panlingua
WORKDIR /data
VOLUME /data
EXPOSE 8080 8501
CMD ["search", "serve", "--host", "0.0.0.0"]
