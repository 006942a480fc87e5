# The verbs of this repository. `make` lists them. Everything that is fetched or built for them lands in the user's
# cache folder ($XDG_CACHE_HOME or ~/.cache, steerage/ there), never in the repository.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup plugin demo test check tools bench parity fuzz tokenizers venv references llamacpp

CACHE    := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/steerage
STEERAGE := go run ./cmd/steerage

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## fetch the XLA plugin for this machine's CPU (63 MB, once)
	$(STEERAGE) setup cpu

# What setup does, for verbs that can do without. Under CI=true they cannot.
plugin:
	@if ! $(STEERAGE) setup cpu >/dev/null; then \
		if [[ "$${CI:-}" == true ]]; then echo "CI=true: both backends must be tested" >&2; exit 1; fi; \
		echo "LEFT OUT: XLA. There is no plugin (see above), so only the Go backend is used." >&2; \
	fi

demo: plugin ## let a small model tell its story
	$(STEERAGE) demo

TESTFLAGS ?=

test: plugin ## all tests, on every backend of this machine
	go test $(TESTFLAGS) ./...
	@if $(MAKE) --no-print-directory tokenizers; then \
		$(WITH_DAULET) go test -tags daulet $(TESTFLAGS) ./tokenizer; \
	elif [[ "$${CI:-}" == true ]]; then echo "CI=true: both tokenizers must be tested" >&2; exit 1; \
	else echo "LEFT OUT: Hugging Face's tokenizers. There is no library (see above), so only the Go tokenizer is tested." >&2; \
	fi

# Hugging Face's tokenizers library, to check ours against in builds with the tag daulet. go.mod pins it, its Cargo.lock all below it.
DAULET        := github.com/daulet/tokenizers
RUST           = $(CACHE)/tokenizers-$(shell go list -m -f '{{.Version}}' $(DAULET))
LIBTOKENIZERS  = $(RUST)/libtokenizers.a
WITH_DAULET    = CGO_LDFLAGS="-L$(RUST)"

tokenizers: ## build Hugging Face's tokenizers for -tags daulet (Rust, minutes, once), unless installed
	@if [[ -e "$(LIBTOKENIZERS)" || -e "$$(cc -print-file-name=libtokenizers.a)" ]]; then exit; fi; \
	if ! command -v cargo >/dev/null; then \
		echo "neither cargo nor a libtokenizers.a is there: install Rust, or put the library where cc finds it" >&2; exit 1; fi; \
	echo "building $(LIBTOKENIZERS)" >&2; \
	go mod download $(DAULET); \
	cargo build --release --locked --lib --quiet --target-dir "$(RUST)/target" \
		--manifest-path "$$(go list -m -f '{{.Dir}}' $(DAULET))/Cargo.toml"; \
	mv "$(RUST)/target/release/libtokenizers.a" "$(LIBTOKENIZERS)"; \
	rm -rf "$(RUST)/target"

# Linters are built from source, once for each version and each Go. A binary of theirs reads only what its own Go knows.
STATICCHECK_VERSION := v0.8.2
GOLANGCI_VERSION    := v2.15.0
TOOLS       := $(CACHE)/tools/$(shell go env GOVERSION)
STATICCHECK := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOLANGCI    := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

tools: ## build the linters (minutes, once)
	@install() { \
		if [[ -x "$$1" ]]; then return; fi; \
		echo "building $$2" >&2; \
		GOFLAGS= GOBIN="$$(dirname "$$1")" go install "$$2"; \
	}; \
	install "$(STATICCHECK)" honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION); \
	install "$(GOLANGCI)" github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

check: tools ## formatting, vet, linters, import arrows, and a build without cgo
	@unformatted=$$(gofmt -l .); if [[ -n "$$unformatted" ]]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	CGO_ENABLED=0 go build ./...
	"$(STATICCHECK)" ./...
	"$(GOLANGCI)" run ./...

MODELS ?= $(wildcard parity/testdata/*/config.json)

parity: plugin ## compare with the reference dumps of parity/testdata; MODELS="DIR DIR" compares others
	go test ./parity
	$(STEERAGE) parity $(patsubst %/config.json,%,$(MODELS))

FUZZTIME ?= 60s

# A target that Go stops by the clock sometimes fails with this message instead of passing (golang/go#75804, fixed in Go 1.27). An input
# that really failed is written down, and said to be.
STOPPED := context deadline exceeded

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	go list ./... | while read -r package; do \
		test=(go test); \
		if [[ "$$package" == */tokenizer && -e "$(LIBTOKENIZERS)" ]]; then test=(env $(WITH_DAULET) go test -tags daulet); fi; \
		"$${test[@]}" -list '^Fuzz' "$$package" | { grep '^Fuzz' || true; } | while read -r target; do \
			echo "$$package $$target"; \
			if ! "$${test[@]}" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package" </dev/null 2>&1 | tee "$$log"; then \
				if ! grep -q '$(STOPPED)' "$$log" || grep -qE 'Failing input|panic|DATA RACE' "$$log"; then exit 1; fi; \
				echo "$$target was stopped by the clock, which is no failure"; \
			fi; \
		done; \
	done

bench: plugin ## measure against Hugging Face transformers on the same weights; see bench/
	bench/run

PYTHON ?= python3
VENV   := $(CACHE)/venv

venv: ## the Python of the reference dumps, pinned by hash (some GB)
	$(PYTHON) -m venv "$(VENV)"
	"$(VENV)/bin/pip" install --disable-pip-version-check --require-hashes -r parity/reference/requirements.txt

references: venv ## make parity/testdata again with transformers
	PYTHONDONTWRITEBYTECODE=1 "$(VENV)/bin/python" parity/reference/make_testdata.py

LLAMACPP := $(CACHE)/llamacpp

llamacpp: plugin ## give a control vector of ours to llama.cpp and compare (compiles llama.cpp, minutes, once)
	$(PYTHON) -m venv "$(LLAMACPP)"
	CMAKE_ARGS=-DLLAVA_BUILD=OFF "$(LLAMACPP)/bin/pip" install --disable-pip-version-check --require-hashes -r steering/reference/requirements.txt
	go test ./steering -run '^TestGGUFForLlamaCpp$$' -update
	PYTHONDONTWRITEBYTECODE=1 "$(LLAMACPP)/bin/python" steering/reference/llamacpp.py cmd/steerage/demo/stories260k \
		steering/testdata/llamacpp.gguf steering/testdata/llamacpp.safetensors
	go test ./engine -run '^TestLlamaCpp$$' -v
