# shellcheck shell=bash
# What the tests in bash have in common: Debian's packages, the tests' programs, checks and their count, the end of a
# process. Sourced, never run; owns no expectation.

# Numbers and messages of other programs are read.
export LC_ALL=C

need() { # PACKAGE...: installs those that are missing
    local package missing=()
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# shellcheck disable=SC2034  # read by those who source this
passed=0 failed=0
tell() { # WHAT STATUS OUTPUT
    if [ "$2" = 0 ]; then
        passed=$((passed + 1)) && echo "ok      $1"
    else
        failed=$((failed + 1)) && printf 'FAILED  %s\n%s\n' "$1" "$3"
    fi
}
check() { # WHAT COMMAND...
    local told status=0
    told=$("${@:2}" 2>&1) || status=$?
    tell "$1" "$status" "$told"
}
summary() { # how many passed; the status is the test's
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

# For `check`.
same() { diff <(printf '%s\n' "$1") <(printf '%s\n' "$2"); }
not() { if "$@"; then return 1; fi; }

stop() { # PROCESS: and wait for it, unseen, because bash would report how it ended
    { kill -KILL "$1" && wait "$1"; } 2>/dev/null || true
}

# The tests' programs: suite (tests/suite) and unit (those in src), and where both expect the program under test.
# shellcheck disable=SC2034  # read by those who source this, or by their names
build_tests() {
    local built
    built=$(packaging/build-static test --no-run --features schema --lib --test suite --message-format=json-render-diagnostics |
        grep '"test":true},"features"')
    suite=$(grep '"name":"suite"' <<<"$built" | sed 's/.*"executable":"\([^"]*\)".*/\1/')
    unit=$(grep -v '"name":"suite"' <<<"$built" | sed 's/.*"executable":"\([^"]*\)".*/\1/')
    expected=${suite%/deps/*}/lvs-notify
}
# Lines "PROGRAM NAME" of the tests at a place. Those in src are anywhere, but for what `cargo test` ignores there, which
# needs a kernel with IPVS.
tests_at() { # anywhere|here|ipvs
    listed suite "$1::"
    case $1 in
    anywhere) comm -23 <(listed unit '' | sort) <(listed unit '' --ignored | sort) ;;
    ipvs) listed unit '' --ignored ;;
    esac
}
listed() { # suite|unit BEGINNING OPTION...
    "${!1}" --list --format terse "${@:3}" | sed -n "s/^\($2.*\): test\$/$1 \1/p"
}
# For LVS_NOTIFY_GUEST: what needs no IPVS needs no other kernel, unless another release's is asked for.
guest_at() {
    if [ "$1" = here ] && [ -z "${LVS_NOTIFY_RELEASE:-}" ]; then echo never; else echo "${LVS_NOTIFY_GUEST:-auto}"; fi
}
