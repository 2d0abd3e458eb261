#!/usr/bin/env bash
# texts.sh: what a compiler does not see. Changes nothing; names file and line of everything it finds; exit 1 if it did.
#   words      nothing in the tree names a package registry's host or a path of one build machine
#   manifests  Cargo.lock fits the manifests; rust-version, pinned toolchain and README say the same version
#   readme     the blocks with measured output are there and hold output; `make` targets that it names exist
#   links      relative links in Markdown lead somewhere
#   changelog  CHANGELOG.md has an Unreleased section, and one for the version if that is tagged
#   shell      scripts parse; shellcheck, where it is installed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# A clone may belong to somebody else than the user who checks it.
git() { command git -c safe.directory='*' "$@"; }
git rev-parse --is-inside-work-tree >/dev/null || { echo "texts: this is no git work tree" && exit 1; }

bad=0
complain() {
    echo "texts: $*"
    bad=$((bad + 1))
}

# The words are put together here, so that this file does not hold them.
words() {
    local dot='\.' hosts paths pattern
    hosts="crates${dot}io|npmjs${dot}(org|com)|pypi${dot}org|pythonhosted${dot}org|proxy${dot}golang|rubygems${dot}org|deb${dot}debian|(artifactory|nexus|devpi|verdaccio)${dot}"
    paths="(^|[^A-Za-z0-9_.-])/(wor""k|roo""t|bui""lds|home/[a-z]+)/|bash_job""s"
    pattern="($hosts)|($paths)"
    # Cargo.lock names the registry on every line, by its format; cargo writes it, nobody reads it as text.
    if git grep -nIE "$pattern" -- . ':!Cargo.lock'; then
        complain "the above name a registry's host or a build machine's path; say it without"
    fi
    if git ls-files | grep -E '(^|/)\.cargo/'; then
        complain "the above would make everybody build with one machine's settings"
    fi
}

manifests() {
    cargo metadata --locked --format-version 1 >/dev/null || complain "Cargo.lock does not fit the manifests"
    local manifest toolchain
    manifest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    [ "${toolchain%.*}" = "$manifest" ] ||
        complain "Cargo.toml: rust-version $manifest, but rust-toolchain.toml: channel $toolchain"
    grep -qF "Rust $manifest" README.md || complain "README.md: does not name Rust $manifest"
}

# What stands between the markers of a block, without blank lines.
block() {
    awk -v from="<!-- $1:begin -->" -v to="<!-- $1:end -->" '$0 == to { on = 0 } on && NF { print } $0 == from { on = 1 }' README.md
}

readme() {
    local name text target
    for name in demo bench; do
        text=$(block "$name")
        case $text in
            '') complain "README.md: nothing between <!-- $name:begin --> and <!-- $name:end -->: \`make $name\` prints what belongs there" ;;
            '_Not measured yet._') echo "texts: note: README.md: the $name block holds no output yet" ;;
            '```'*'```') [ "$(wc -l <<<"$text")" -ge 5 ] || complain "README.md: the $name block is too short to be real output" ;;
            *) complain "README.md: the $name block is not fenced output" ;;
        esac
    done
    while read -r target; do
        grep -qE "^$target:" Makefile || complain "README.md or CONTRIBUTING.md: \`make $target\` is no target of the Makefile"
    done < <(grep -ohE '(`|^ *(sudo )?)make [a-z][a-z-]*' README.md CONTRIBUTING.md | sed 's/.*make //' | sort -u)
}

links() {
    local file link
    while read -r file; do
        while read -r link; do
            case $link in '' | '#'* | *://* | mailto:*) continue ;; esac
            [ -e "$(dirname "$file")/${link%%#*}" ] || complain "$file: link to $link leads nowhere"
        done < <(grep -oE '\]\([^) ]+\)' "$file" | sed 's/^](\(.*\))$/\1/')
    done < <(git ls-files '*.md')
}

changelog() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    grep -q '^## \[Unreleased\]' CHANGELOG.md || complain "CHANGELOG.md: no section [Unreleased]"
    if git rev-parse -q --verify "refs/tags/v$version" >/dev/null; then
        grep -qF "## [$version]" CHANGELOG.md || complain "CHANGELOG.md: v$version is tagged but has no section"
    elif ! awk '/^## \[Unreleased\]/ { on = 1; next } /^## / { on = 0 } on && /^- / { found = 1 } END { exit !found }' CHANGELOG.md; then
        complain "CHANGELOG.md: [Unreleased] is empty, but v$version has not been released"
    fi
}

shell() {
    local script
    while read -r script; do
        case $(head -n 1 "$script") in
            '#!'*bash) bash -n "$script" || complain "$script: does not parse" ;;
            '#!'*sh) sh -n "$script" || complain "$script: does not parse" ;;
            *) continue ;;
        esac
        [ -x "$script" ] || complain "$script: is a script but not executable"
        if command -v shellcheck >/dev/null; then
            shellcheck "$script" || complain "$script: shellcheck (above)"
        fi
    done < <(git ls-files '*.sh' .ci)
}

words
manifests
readme
links
changelog
shell
[ "$bad" -eq 0 ] || {
    echo "texts: $bad found"
    exit 1
}
