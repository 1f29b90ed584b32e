# Sourced by the other scripts and by the Makefile's recipes: where everything
# goes that is brought or built once (services for the tests, Cargo's target
# folder). Outside the clone, so that a new clone on the same machine is warm
# and nothing heavy lies beside the sources.
MILLRACE_CACHE=${MILLRACE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace}
export MILLRACE_CACHE
export CARGO_TARGET_DIR="$MILLRACE_CACHE/target"
mkdir -p "$MILLRACE_CACHE"

# rustup puts cargo here, and non-interactive shells often lack it on PATH.
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
fi
