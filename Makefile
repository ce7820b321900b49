# istio-os-init: `make help` lists what can be made. Recipes are one line; what is longer is a script.
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables
.SUFFIXES:
KERNEL ?=
SHORT ?= -short
.DEFAULT_GOAL := help

##@ See it work
.PHONY: up
up: ## a kind cluster with a VM worker, the chart installed and a verdict on every node
	@scripts/lab/up

.PHONY: node
node: ## a VM worker in that cluster: KERNEL=bullseye|bookworm|trixie|sid RUNTIME=containerd|crio SELINUX=off|enforcing
	@scripts/lab/node

.PHONY: status
status: ## the table of nodes
	@scripts/lab/status

.PHONY: down
down: ## remove what `up` made
	@scripts/lab/down

##@ Work on it
.PHONY: check
check: tools ## form, rendering and scripts: in minutes, needs neither root nor Docker
	@scripts/check $(SHORT)

.PHONY: tools
tools: ## what the tests need, built once: the first time a quarter of an hour; the others do it first
	@scripts/build-tools

.PHONY: test
test: tools ## everything, on a real cluster; brings up the lab and takes it down again unless it was up (SHORT= with what takes longest)
	@scripts/test $(SHORT)

.PHONY: test-kernel
test-kernel: tools ## on a VM's own kernel: the failure before, the modules loaded, the proof after (KERNEL as for node)
	@scripts/test-kernel $(KERNEL)

.PHONY: test-kernels
test-kernels: tools ## the same on all four kernels and both runtimes, and the table of them in the chart's docs
	@scripts/test-kernel bullseye bookworm trixie trixie/containerd sid

.PHONY: test-kubernetes
test-kubernetes: tools ## API servers on loopback, from the oldest to the newest, and nodes of mixed versions; the table in the chart's docs
	@scripts/test-kubernetes

.PHONY: bench
bench: tools ## what the chart costs beside the DaemonSet that users copy: 45 minutes on the lab, into .bench/ and the chart's docs; PART=node or PART=fleet: half of it
	@scripts/bench .bench $(PART)

.PHONY: generate
generate: tools ## what is made from other files: schema, README and list of changes of the chart, tables of its pages, goldens of the tests
	@scripts/generate

.PHONY: package
package: ## the chart as it is committed, in .package/; signed with the key in CHART_SIGNING_KEY
	@scripts/package

.PHONY: format
format: ## mend what lint can mend: the format of Go and shell
	@scripts/lint --fix

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
