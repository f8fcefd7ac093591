# Two commands do everything on a fresh machine: make run, make test.
# `make help` lists the rest. What is fetched or built for tools goes to .cache, which git ignores.

SHELL := /bin/bash
CACHE := $(CURDIR)/.cache
BIN   := $(CURDIR)/bin
GOLANGCI_LINT_VERSION := v2.15.0
LINT  := $(CACHE)/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# The race detector needs a C compiler; without one the tests still run, and say so.
RACE  := $(shell command -v $$(go env CC) >/dev/null 2>&1 && echo -race)

# Executions of each fuzz target, a few seconds. Not a time: at the end of one Go's
# fuzzer now and then fails with nothing but "context deadline exceeded".
FUZZTIME ?= 30000x

# Tests on Apache Kafka run where a JDK, Maven and kcat (librdkafka's client) are;
# APACHE_KAFKA=required fails without.
KAFKA_LACKS := $(strip $(foreach program,java javac mvn kcat,$(shell command -v $(program) >/dev/null || echo $(program))))
KAFKA := $(or $(filter required,$(APACHE_KAFKA)),$(if $(KAFKA_LACKS),,found))

# The simulation on an engine moves its clock with Debian's package faketime. It runs
# where that is; SIMULATION=required fails without.
CLOCK := $(or $(filter required,$(SIMULATION)),$(shell command -v faketime >/dev/null && echo found))

comma := ,
TEST_TAGS := $(if $(KAFKA),kafka$(comma))$(if $(CLOCK),simulation)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: fetch build ## start everything on this machine, load a sample, print what to open
	@exec $(BIN)/standalone

.PHONY: fetch
fetch: ## bring the engine and the country database into .cache, once
	@go run ./cmd/standalone -fetch

# Checked on each use. A jar too many fails as well: the class path is the whole folder.
KAFKA_LIBS := $(CACHE)/kafka/libs
KAFKA_CHECK = sha256sum --check --quiet $(CURDIR)/tools/kafka/libs.sha256 && [ $$(ls | wc -l) = $$(wc -l < $(CURDIR)/tools/kafka/libs.sha256) ]

.PHONY: fetch-kafka
fetch-kafka: ## bring Apache Kafka for the tests into .cache with Maven, once
	@(cd $(KAFKA_LIBS) && $(KAFKA_CHECK)) >/dev/null 2>&1 || { \
	  rm -rf $(KAFKA_LIBS) && mvn -q -B --strict-checksums -f tools/kafka/pom.xml dependency:copy-dependencies \
	    -DincludeScope=runtime -DoutputDirectory=$(KAFKA_LIBS) && cd $(KAFKA_LIBS) && $(KAFKA_CHECK) || \
	  { rm -rf $(KAFKA_LIBS); echo "Apache Kafka is not what tools/kafka/libs.sha256 says, or did not come"; exit 1; }; }

.PHONY: build
build: ## build the four programs into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/ ./cmd/...

.PHONY: test
test: fetch $(if $(KAFKA),fetch-kafka) deps-check unit fuzz ## fetch, then every test, the race detector on, and a few seconds of each fuzz target

.PHONY: unit
unit:
	@[ -n "$(RACE)" ] || echo "no C compiler: the tests run without the race detector"
	@[ -n "$(KAFKA)" ] || echo "not installed: $(KAFKA_LACKS); the tests on Apache Kafka are left out"
	@[ -n "$(CLOCK)" ] || echo "not installed: faketime; the simulation runs without an engine"
	go test $(RACE) -tags=$(TEST_TAGS) -timeout 25m ./...

.PHONY: fuzz
fuzz: ## run every fuzz target FUZZTIME (30000x)
	@set -e; grep -rlE '^func Fuzz' --include=*_test.go . | sort | while read -r file; do \
	  for target in $$(grep -oE '^func Fuzz[A-Za-z0-9_]+' $$file | cut -c6-); do \
	    echo "fuzz $$target in $$(dirname $$file)"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$(dirname $$file)"; \
	  done; done

.PHONY: bench
bench: fetch build ## measure the whole route beside a naive loop, a lookup among 10 million rows, and moving expiries (ROWS)
	go run ./internal/bench
	go test -run '^$$' -bench Subject -benchtime 50x -timeout 20m ./internal/store
	go test -run '^$$' -bench Fate ./internal/retention
	go test -v -run '^$$' -bench Cost -benchtime 1x -timeout 60m ./internal/retention -args -cost.rows $(or $(ROWS),1000000)

.PHONY: bench-check
bench-check: fetch build ## the same route, failing below its limits
	go run ./internal/bench -check

# Without SEED a run takes one of its own and prints it.
DURATION ?= 5m
.PHONY: storm
storm: fetch fetch-kafka build ## kill, stop and freeze everything for DURATION (5m) by a seed (SEED), then prove that nothing was lost or doubled
	go run ./internal/storm -duration $(DURATION) -seed $(or $(SEED),0) -kills $(or $(KILLS),1)

# With SEED and ACCOUNTS another world; CHECKPOINTS must divide 96.
.PHONY: simulate
simulate: fetch ## live through eight years of each example policy, and hold every row to its sentence (needs faketime)
	go run ./internal/simulate -seed $(or $(SEED),1) -accounts $(or $(ACCOUNTS),24) -checkpoints $(or $(CHECKPOINTS),96)

.PHONY: lint
lint: $(LINT) ## gofmt, go vet and golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go') | tee /dev/stderr)" || { echo "gofmt wants the files above changed"; exit 1; }
	$(LINT) run ./...

$(LINT):
	@mkdir -p $(dir $@)
	GOBIN=$(CACHE)/bin/tmp go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(CACHE)/bin/tmp/golangci-lint $@

.PHONY: deps-check
deps-check: ## fail when a production program links an embedded part or a test library
	@for program in ingest query publish; do \
	  bad=$$(go list -deps ./cmd/$$program | grep -E 'purego|franz-go|mmdbwriter|internal/embedded|^testing$$|rapid|goleak|jsonschema|openapi' || true); \
	  [ -z "$$bad" ] || { echo "cmd/$$program links what it must not:"; echo "$$bad"; exit 1; }; \
	done; echo "production programs link no embedded part"

.PHONY: tidy
tidy: ## go mod tidy
	go mod tidy

.PHONY: clean
clean: ## remove what was built; keeps .cache and the data
	rm -rf $(BIN)
