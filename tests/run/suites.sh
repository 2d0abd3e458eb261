#!/usr/bin/env bash
# suites.sh [long]: builds everything, runs every suite, names what was skipped and why, and ends with one line:
#   N passed, N failed, N skipped
# Exit 0 only if something ran, nothing failed and, in CI as root on Linux, nothing was skipped.
#
# What counts as skipped: a test that prints a line `SKIP name: why` and returns; a test marked #[ignore].
# The exception: `#[ignore = "long: why"]` marks a drill of `make test-long`; `make test` names it as not part of it.
# With cargo-nextest every test is a process of its own with a time limit; without it `cargo test` runs the same tests.
set -euo pipefail

mode=${1:-short}
case $mode in short | long) ;; *) echo "usage: suites.sh [long]" >&2 && exit 2 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=tests/run
target=${CARGO_TARGET_DIR:-target}
as_root=no
[ "$(id -u)" -eq 0 ] && [ "$(uname -s)" = Linux ] && as_root=yes
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export RUST_BACKTRACE=0 # a panic names its line; property tests would print a thousand traces
export BEDPLATE_BIN_DIR=$target/debug
case $BEDPLATE_BIN_DIR in /*) ;; *) BEDPLATE_BIN_DIR=$PWD/$BEDPLATE_BIN_DIR ;; esac
if [ "$mode" = long ]; then export BEDPLATE_LONG=1; fi

scratch='' passed=0 failed=0 skipped=0
finish() { # prints the closing line and leaves with the exit code that goes with it
    local code=0
    [ "$failed" -eq 0 ] || code=1
    if [ "$skipped" -gt 0 ] && [ "$as_root" = yes ]; then
        echo "WARNING: as root on Linux nothing should be skipped, yet $skipped were (named above)"
        if [ "${CI:-}" = true ]; then
            echo "FAILED skips: with CI=true that is an error"
            code=1
        fi
    fi
    clean_up
    echo "$passed passed, $failed failed, $skipped skipped"
    exit "$code"
}
fail() { # one more failure, with its reason
    failed=$((failed + 1))
    echo "FAILED $*"
}

# Tests put their files and backing images here. A tmpfs or an overlay cannot show where a block lies.
scratch_dir() {
    local dir
    for dir in "${TMPDIR:-/tmp}" /var/tmp "$target/tmp"; do
        mkdir -p "$dir" 2>/dev/null || continue
        [ -w "$dir" ] || continue
        case $(stat -f -c %T "$dir") in tmpfs | ramfs | overlayfs) continue ;; esac
        (cd "$dir" && pwd -P)
        return
    done
    echo "${TMPDIR:-/tmp}"
}

# What tests left attached or mounted below our own scratch folder, one a line. Nothing else on the machine is looked at.
leftovers() {
    local backing
    awk -v d="$scratch/" 'index($5, d) == 1 { print "mount " $5 }' /proc/self/mountinfo 2>/dev/null | sort -r || true
    for backing in /sys/block/loop*/loop/backing_file; do
        [ -r "$backing" ] || continue
        case $(cat "$backing" 2>/dev/null) in "$scratch"/*) echo "loop /dev/$(basename "${backing%/loop/backing_file}")" ;; esac
    done
}

clean_up() {
    local kind what
    [ -n "$scratch" ] && [ -d "$scratch" ] || return 0
    while read -r kind what; do
        case $kind in
            mount) umount -l "$what" || true ;;
            loop) losetup -d "$what" || true ;;
        esac
    done < <(leftovers)
    rm -rf --one-file-system "$scratch" || true
    scratch=''
}
trap clean_up EXIT

# --- tools and build -------------------------------------------------------------------------------------------------
if ! "$here/packages.sh" test; then
    if [ "$as_root" = yes ]; then
        fail "packages: tools are missing (above)"
        finish
    fi
    echo "going on without them: the tests that need them need root as well"
fi

scratch=$(mktemp -d "$(scratch_dir)/bedplate.XXXXXX")
chmod 755 "$scratch"
export TMPDIR=$scratch

echo "building"
# Binaries and tests in one go: one set of features, so nothing is compiled twice, and tests find the agent they start.
if ! cargo build --workspace --bins --tests --locked; then
    fail "build: the workspace does not build (above)"
    finish
fi

# --- suites ----------------------------------------------------------------------------------------------------------
# Reads ignored tests as `package::binary name`, splits long drills from skipped ones by the reason in the source.
ignored() {
    local id name reason
    while read -r id name; do
        [ -n "$name" ] || continue
        reason=$(grep -rh --include='*.rs' -B 8 -E "fn ${name##*::}\(" agent cli crates provisioner tests 2>/dev/null |
            sed -n 's/.*#\[ignore = "\(.*\)"\].*/\1/p' | tail -n 1) || true
        case $reason in
            long:*) echo "not part of make test: $id $name (make test-long; ${reason#long: })" ;;
            *)
                skipped=$((skipped + 1))
                echo "SKIP $id $name: ${reason:-ignored without a reason}"
                ;;
        esac
    done
}

with_nextest() {
    local profile=suites code=0 tests run=()
    if [ "$mode" = long ]; then
        profile=long
        run=(--run-ignored all)
    fi
    local junit=target/nextest/$profile/junit.xml
    # nextest keeps its reports below the workspace, wherever the target folder is.
    rm -f "$junit"
    cargo nextest run --workspace --locked --profile "$profile" "${run[@]}" </dev/null 2>&1 || code=$?
    if [ ! -s "$junit" ]; then
        fail "nextest: ended with $code and without a report (above)"
        return
    fi
    read -r tests failed skipped < <(awk -f "$here/junit.awk" "$junit")
    passed=$((tests - failed - skipped))
    awk -v list=1 -f "$here/junit.awk" "$junit"
    if [ "$code" -ne 0 ] && [ "$failed" -eq 0 ]; then
        fail "nextest: ended with $code though no test failed (above)"
    fi
    if [ "$mode" = short ]; then
        ignored < <(cargo nextest list --workspace --locked --run-ignored only -T oneline </dev/null 2>/dev/null)
    fi
}

# Leaves out what says that there was nothing to do.
quietly() {
    grep --line-buffered -v -E '^(|running 0 tests|successes:|test result: ok\. 0 passed.*| *Doc-tests .*)$' || true
}

# Runs cargo test with the arguments and adds up its summaries. $1 names the run.
with_cargo_test() {
    local name=$1 log=$scratch/$1.log code=0 p f s
    shift
    {
        timeout --kill-after=30s "$([ "$mode" = long ] && echo 4h || echo 40m)" \
            cargo test --workspace --locked --no-fail-fast "$@" </dev/null 2>&1 || code=$?
        echo "$code" >"$scratch/code"
    } | tee "$log" | quietly
    code=$(cat "$scratch/code")
    read -r p f s < <(awk -f "$here/libtest.awk" "$log")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    awk -v list=1 -f "$here/libtest.awk" "$log"
    if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then
        fail "$name: cargo test ended with $code though no test failed: a test program died or did not build (above)"
    fi
}

if cargo nextest list --help 2>/dev/null | grep -q oneline; then
    with_nextest
else
    echo "cargo-nextest is not installed (or too old): cargo test runs the same tests, with no time limit for each"
    if [ "$mode" = long ]; then
        with_cargo_test tests --bins --lib --tests -- --show-output --include-ignored
    else
        with_cargo_test tests --bins --lib --tests -- --show-output
    fi
fi
ran=$((passed + failed + skipped))
with_cargo_test doc --doc -- --show-output

[ "$ran" -gt 0 ] || fail "suites: no test ran"
left=$(leftovers)
if [ -n "$left" ]; then
    echo "$left"
    fail "clean-up: the tests left the above attached or mounted"
fi
finish
