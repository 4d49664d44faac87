# shellcheck shell=bash
# Puts a Rust that Cargo.toml's rust-version accepts first into PATH: the one that is there already, rustup's own
# directory, Debian's, or Ubuntu's packages with a version in their names, which have no plain `cargo` in PATH.
# Sourced before cargo or rustc is called, by whatever people call first; changes nothing when none is found, and
# installs none (that is tests/guest/install's).

rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")

rust_suffices() { # VERSION
    [ -n "$1" ] && printf '%s\n' "$rust_needed" "$1" | sort -C -V
}

rust_path() { # fails when there is none
    local found directory version home=${CARGO_HOME:-~/.cargo}
    found=$(command -v cargo || true)
    found=${found%/*}
    # The newest first of those with a version.
    for directory in "$found" "$home/bin" /usr/bin $(printf '%s\n' /usr/lib/rust-*/bin | sort -r -V); do
        # Asked, because rustup has a `cargo` even where it has no toolchain.
        version=$("$directory/cargo" --version 2>/dev/null | cut -d ' ' -f 2) || continue
        rust_suffices "$version" || continue
        if [ "$directory" != "$found" ]; then PATH=$directory:$PATH; fi
        return
    done
    false
}
rust_path || true
