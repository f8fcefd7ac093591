# The two services: static programs on an empty image, run by a user without rights.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/ ./cmd/ingest ./cmd/query

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
USER 65532:65532

FROM base AS ingest
COPY --from=build /out/ingest /ingest
ENTRYPOINT ["/ingest"]

FROM base AS query
COPY --from=build /out/query /query
ENTRYPOINT ["/query"]
