#!/bin/sh
# The race in small, for `make check`: every policy that runs has a capacity within the bound.
set -u
cd "$(dirname "$0")/../.." || exit 1
json=$(mktemp) || exit 1
trap 'rm -f "$json"' EXIT
"${BUILD:-build}/test/race/race" --quick --json "$json" | sed 's/^/# /'
awk -F '[:,]' '
    /"capacity_rps"/ {
        n++
        for (i = 1; i < NF; i++) {
            if ($i == "\"capacity_rps\"") capacity = $(i + 1)
            if ($i == "\"bound_rps\"") bound = $(i + 1)
        }
        if (!(capacity > 0 && capacity < bound)) { print "# " $0; bad++ }
    }
    /"overload"/ { overload++ }
    END {
        print (n == 6 && !bad ? "ok" : "not ok") " - every policy of a small race has a capacity within the bound"
        print (overload == 2 ? "ok" : "not ok") " - ours and the best rival are overloaded"
        exit n != 6 || bad || overload != 2
    }' "$json"
