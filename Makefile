# The two commands of the README are `make demo` and `make test`; the others are for developers.

.PHONY: demo test faults bench install check

# Installs what is missing, and says so. Needs Debian and Rust; root or sudo.
install:
	@bash tests/lab/lab.sh install

# Moves real tables between real servers on this machine and shows what happens.
demo: install
	@bash tests/demo.sh

# Most tests wait for servers: more of them at once than there are cores.
test: install
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-3} cargo test --locked

# The proof by faults, in its long form: GPFERRY_FAULTS_RUNS=300, GPFERRY_FAULTS_SEED= replays one.
faults: install
	GPFERRY_FAULTS_RUNS=$${GPFERRY_FAULTS_RUNS:-300} cargo test --locked --test faults -- --nocapture

# Ratios against the hand pipeline and pgcopydb, in one run; tests/bench/main.rs says what can be set.
bench:
	@bash tests/lab/lab.sh install pgcopydb
	cargo bench --locked --bench pipeline

# What must hold before a commit.
check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
