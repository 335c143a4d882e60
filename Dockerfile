# A machine with only Python and make, as a user might have it, on which everything is built and
# tested:   docker build -t shoal . && docker run --rm shoal make demo
FROM debian:bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates make python3 \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /shoal
COPY . .
RUN make build
CMD ["make", "test"]
