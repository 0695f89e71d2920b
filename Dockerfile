# kbench in a container, for a CPU or, with another build of torch, for NVIDIA's GPUs:
#   docker build -t kbench .
#   docker build -t kbench:cuda --build-arg TORCH=cu126 .
#   docker run --rm --gpus all -v "$PWD:/work" -v kbench-cache:/cache kbench:cuda run grid.yaml
# CUDA's libraries come with torch; the host needs a driver and the NVIDIA Container Toolkit.
FROM python:3.12-slim
ARG TORCH=cpu
WORKDIR /opt/kbench
COPY . .
RUN pip install --no-cache-dir "$(grep ^torch== constraints.txt)" \
        --index-url "https://download.pytorch.org/whl/$TORCH" \
    && pip install --no-cache-dir -c constraints.txt '.[run,leaderboard]'
ENV KBENCH_CACHE=/cache
WORKDIR /work
ENTRYPOINT ["kbench"]
