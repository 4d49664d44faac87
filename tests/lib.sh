# shellcheck shell=bash
# What the tests in bash have in common: Debian's packages, checks and their count, the end of a process.
# Sourced, never run; owns no expectation. Sourced by `packages`, `debian` and `guest/run`.

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
