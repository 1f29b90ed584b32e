# Sourced: finds a Go toolchain that is new enough for MinIO, either the one on
# PATH or the one that setup.sh put into the cache because Debian's is too old.

# What MinIO's go.mod asks for.
GO_NEEDED=1.24.0
# What setup.sh fetches when there is no such Go.
GO_FETCHED=1.26.8

# go_suits GO: whether this go command is new enough without fetching another.
go_suits() {
    local version
    version=$(GOTOOLCHAIN=local "$1" version 2>/dev/null) || return 1
    version=${version#go version go}
    version=${version%% *}
    [ "$(printf '%s\n' "$GO_NEEDED" "$version" | sort -V | head -n 1)" = "$GO_NEEDED" ]
}

# find_go: prints the path of a suitable go command, or fails.
find_go() {
    local go
    for go in "$(command -v go)" "$MILLRACE_CACHE/go-$GO_FETCHED/bin/go"; do
        if [ -n "$go" ] && go_suits "$go"; then
            echo "$go"
            return
        fi
    done
    return 1
}
