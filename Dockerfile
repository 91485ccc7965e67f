# One image per design: torch -> base -> op -> kernels (DESIGN, TOOLCHAIN) -> runtime; for another library, peer.
#
# `harness build` writes the bake definition from opt_designs/ and calls this; by hand, one image is
#   docker buildx build --target design --build-arg DESIGN=combined --build-arg TOOLCHAIN=12.1 -t combined .
# Needs no frontend image, so that it also builds where nothing can be pulled.

# Where Python and PyTorch are installed into. Ubuntu or Debian; brings the driver's user-space conventions.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04
# An image that already has python3 and PyTorch takes the place of the stage `torch`.
ARG TORCH_IMAGE=torch

# Two folders that a build may pass in (--build-context); empty where it does not.
# wheelhouse: Python packages, so that nothing is downloaded. compiled: kernels from the host's compile cache.
FROM scratch AS wheelhouse
FROM scratch AS compiled


FROM ${BASE_IMAGE} AS torch
# CUDA base images come without Python; another base may bring its own.
RUN python3 -c 'import ensurepip, venv' 2>/dev/null || { \
      apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
      && rm -rf /var/lib/apt/lists/*; }
# A virtual environment, since pip may not write into a distribution's own Python.
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY docker/requirements.txt /opt/harness/
ARG TORCH_VERSION=2.11.0
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
# PyTorch with the CUDA libraries that its wheels depend on: by far the largest layer, shared by every image.
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check "torch==${TORCH_VERSION}" -r /opt/harness/requirements.txt


FROM ${TORCH_IMAGE} AS base
USER root
COPY docker/requirements.txt /opt/harness/
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
# For a TORCH_IMAGE that lacks them; does nothing after the stage above.
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse --mount=type=cache,target=/root/.cache/pip \
    python3 -c 'import numpy, pynvml' 2>/dev/null \
    || python3 -m pip install --disable-pip-version-check -r /opt/harness/requirements.txt
ENV PYTHONPATH=/opt/harness/lib PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /opt/harness/lib
COPY harness/__init__.py harness/bag_counts.py harness/bounds.py harness/codec.py harness/decoder.py harness/errors.py harness/
COPY harness/files.py harness/groups.py harness/records.py harness/text.py harness/wall.py harness/workload.py harness/
COPY harness/patch harness/patch


FROM base AS op
# The patch's operator is compiled against the headers of the PyTorch that will load it.
RUN command -v c++ >/dev/null || { \
      apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ \
      && rm -rf /var/lib/apt/lists/*; }
COPY opt_designs/common/lookup_args.h opt_designs/common/tables_args.h opt_designs/common/
RUN python3 -m harness.patch.build --output /opt/harness/op.so


FROM base AS compiler
COPY docker/compiler.txt /opt/harness/
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
# What reads and checks a design.toml; beside the compiler only, never in an image that runs.
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --disable-pip-version-check --target /opt/compiler -r /opt/harness/compiler.txt
ENV PYTHONPATH=/opt/harness/lib:/opt/compiler
COPY harness/design_checks.py harness/design_source.py harness/designs.py harness/
COPY harness/progress.py harness/validation.py harness/
COPY harness/build harness/build
COPY opt_designs/common opt_designs/common


FROM compiler AS kernels
ARG DESIGN
ARG TOOLCHAIN
ARG ARCHS
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
COPY opt_designs/${DESIGN} opt_designs/${DESIGN}
# Compiles the one design that this image is about. The cache is keyed by content: it keeps the downloaded compiler
# between builds, and a host that compiled already hands its result over through `compiled`.
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse --mount=type=bind,from=compiled,target=/compiled \
    --mount=type=cache,target=/var/cache/harness \
    cp -Rn /compiled/. /var/cache/harness/ \
    && for arch in ${ARCHS}; do set -- "$@" --arch "$arch"; done \
    && HARNESS_CACHE_DIR=/var/cache/harness python3 -m harness.build.kernels "${DESIGN}" \
         --toolchain "${TOOLCHAIN}" "$@" --output /opt/harness/design


# PyTorch as it is, with the means to measure it.
FROM base AS stock
COPY harness/traces harness/traces
COPY harness/bench harness/bench
# The entry point by which `import torch` loads the patch.
COPY docker/embedding_harness.dist-info embedding_harness.dist-info
COPY --from=op /opt/harness/op.so /opt/harness/op.so
ENV HARNESS_OP_LIBRARY=/opt/harness/op.so HOME=/tmp
# What a launch may write, whoever it runs as: where no folder of the host's is mounted there, a volume takes its mode.
RUN mkdir -p /launch/out && chmod 1777 /launch/out
WORKDIR /launch
# Nothing here needs to be root; `harness run` chooses the user who owns the results.
USER 1000:1000
ENTRYPOINT ["python3", "-m", "harness.bench"]


# The same, patched: torch.nn.EmbeddingBag runs the design from `import torch` on.
FROM stock AS design
COPY --from=kernels /opt/harness/design /opt/harness/design
ENV HARNESS_DESIGN=/opt/harness/design


# PyTorch with another library beside it, and what measures that.
FROM stock AS peer
ARG DESIGN
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
USER root
COPY opt_designs/${DESIGN} /opt/harness/peer/${DESIGN}
# Whatever PyTorch is here stays: the library has to fit it, not the other way round.
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse --mount=type=cache,target=/root/.cache/pip \
    python3 -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' > /tmp/constraints.txt \
    && python3 -m pip install --disable-pip-version-check --constraint /tmp/constraints.txt \
         -r "/opt/harness/peer/${DESIGN}/requirements.txt"
ENV HARNESS_PEER=/opt/harness/peer/${DESIGN}
USER 1000:1000
