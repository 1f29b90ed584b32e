# The ways into the project; `make` alone lists them. What takes more than a
# line is a script in scripts/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:

# Every recipe that runs cargo starts with this: the cache folder outside the
# clone, with Cargo's target folder in it.
CACHE := . scripts/cache.sh

# And this where what is built has RocksDB in it: built once into the cache, then linked in seconds.
ROCKSDB := ROCKSDB_STATIC=1; ROCKSDB_LIB_DIR=$$(scripts/fetch-rocksdb.sh); export ROCKSDB_STATIC ROCKSDB_LIB_DIR

.PHONY: help setup build run test instructions matrix soak chaos chaos-k8s bench bench-recovery unaligned latency fuzz cluster-up cluster-down clean-cache

help: ## list the targets
	sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what building and testing need (apt-get)
	scripts/setup.sh test

build: ## build the release binaries
	scripts/setup.sh build
	$(CACHE)
	$(ROCKSDB)
	cargo build --release --workspace --bins --features millrace-examples/rocksdb,millrace-worker/hdfs
	echo "binaries are in $$CARGO_TARGET_DIR/release"

# Without RocksDB, which would take a fresh machine another quarter of an hour.
run: ## run the main job and kill it halfway; KAFKA=host:port TOPIC=name for a real Kafka
	scripts/setup.sh build
	$(CACHE)
	cargo build --release -p millrace-examples -p millrace-worker
	"$$CARGO_TARGET_DIR/release/demo" $(if $(KAFKA),--kafka '$(KAFKA)') $(if $(TOPIC),--topic '$(TOPIC)')

# The services and the one cargo profile that tests share.
SERVICES = \
	scripts/setup.sh test; \
	$(CACHE); \
	$(ROCKSDB); \
	MILLRACE_KAFKA_HOME=$$(scripts/fetch-kafka.sh); \
	MILLRACE_MINIO_BIN=$$(scripts/fetch-minio.sh); \
	MILLRACE_HADOOP_HOME=$$(scripts/fetch-hadoop.sh); \
	scripts/fetch-kubernetes.sh >/dev/null; \
	export MILLRACE_KAFKA_HOME MILLRACE_MINIO_BIN MILLRACE_HADOOP_HOME

# The same for all that is built for the tests: what differs is built again.
TESTED := millrace-tests/rocksdb,millrace-tests/hdfs,millrace-connectors/parquet,millrace-connectors/postgres

test: ## formatting, lints, all tests and the instructions of the hottest paths
	$(SERVICES)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features $(TESTED) -- -D warnings
	scripts/check-own-job.sh
	# tests of processes start the programs as users do
	cargo build --workspace --bins --features $(TESTED)
	cargo test --workspace --features $(TESTED) --no-fail-fast
	scripts/count-instructions.sh

instructions: ## the instructions that the five hottest paths take, against the committed baseline
	$(CACHE)
	scripts/count-instructions.sh

matrix: ## restore checkpoints of each backend and parallelism on each other; FILTER='rocksdb@3 -> memory@7'
	scripts/setup.sh build
	$(CACHE)
	$(ROCKSDB)
	cargo test -p millrace-tests --features rocksdb --test matrix -- $(if $(FILTER),'$(FILTER)')

soak: ## the tests that take long
	$(SERVICES)
	cargo build --release --workspace --bins
	cargo test --release -p millrace-tests --features soak --test soak -- --nocapture --test-threads 1
	cargo test --release -p millrace-k8s-tests --features soak --test soak -- --nocapture
	cargo test --release -p millrace-state-rocksdb --features soak --test memory --test checkpoint_cost -- --nocapture
	cargo build --release -p millrace-tests --features rocksdb --bins
	"$$CARGO_TARGET_DIR/release/chaos" --faults 1000 --sinks --parallel 4

chaos: ## N faults at a job's processes, in the order of SEED; ONLY=kinds, JOB=program ARGS=its; docs/attack.md
	$(SERVICES)
	cargo build -p millrace-tests --features rocksdb --bins
	"$$CARGO_TARGET_DIR/debug/chaos" --faults $(or $(N),60) $(if $(SEED),--seed $(SEED)) $(if $(filter sinks,$(ONLY)),--sinks,$(if $(ONLY),--only $(ONLY))) \
	    $(if $(JOB),--job '$(JOB)') $(MORE) $(if $(ARGS),-- $(ARGS))

chaos-k8s: ## N faults on a real cluster, in the order of SEED
	$(SERVICES)
	cargo run -p millrace-k8s-tests --bin chaos-k8s -- --faults $(or $(N),30) $(if $(SEED),--seed $(SEED))

unaligned: ## how long checkpoints take under backpressure, aligned and unaligned: writes docs/unaligned.md
	$(CACHE)
	$(ROCKSDB)
	cargo build --release -p millrace-examples -p millrace-tests --bins
	"$$CARGO_TARGET_DIR/release/checkpoint_durations" --write docs $(ARGS)

latency: ## how late output that is committed with checkpoints is seen: writes docs/committed-latency.md
	$(SERVICES)
	cargo build --release -p millrace-examples -p millrace-tests --bins
	"$$CARGO_TARGET_DIR/release/committed_latency" --write docs $(ARGS)

bench: ## the same jobs on Millrace and on Flink; ONLY='keyed-count backend=heap' for some; ARGS for other flags
	scripts/setup.sh bench
	$(CACHE)
	$(ROCKSDB)
	MILLRACE_KAFKA_HOME=$$(scripts/fetch-kafka.sh); export MILLRACE_KAFKA_HOME
	flink=$$(scripts/fetch-flink.sh)
	cargo build --release -p millrace-examples -p millrace-benches --features millrace-examples/rocksdb,millrace-benches/rocksdb
	"$$CARGO_TARGET_DIR/release/bench" --flink "$$flink" $(if $(ONLY),--only '$(ONLY)') \
		--write docs/benchmarks.md $(ARGS)

bench-recovery: ## how long jobs are silent after a kill, beside Flink's; ARGS='--kills 5 --scenario heap'
	scripts/setup.sh bench
	$(SERVICES)
	flink=$$(scripts/fetch-flink.sh)
	cargo build --release -p millrace-benches --features rocksdb --bins
	"$$CARGO_TARGET_DIR/release/bench-recovery" --flink "$$flink" --write docs/recovery-results.md $(ARGS)

fuzz: ## fuzz all that is read from outside, each target for SECONDS=60
	$(CACHE)
	$(ROCKSDB)
	scripts/fuzz.sh $(or $(SECONDS),60)

cluster-up: ## bring up a real Kubernetes of one node, as root; prints the exports for kubectl and helm
	scripts/setup.sh test
	$(CACHE)
	kubeconfig=$$(tests/cluster/up.sh)
	echo "export KUBECONFIG=$$kubeconfig"
	echo "export PATH=$$MILLRACE_CACHE/kubernetes:\$$PATH"

cluster-down: ## remove it with every trace
	tests/cluster/down.sh

clean-cache: ## remove the cache with all that was fetched and built
	tests/cluster/down.sh
	$(CACHE)
	rm -rf "$$MILLRACE_CACHE"
