#!/bin/sh
# Installs the distribution's packages the tests use as witnesses, where we may; says what is missing where we may not.
missing=""
command -v tshark >/dev/null 2>&1 || missing="$missing tshark"
command -v tcpdump >/dev/null 2>&1 || missing="$missing tcpdump"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q >/dev/null 2>&1
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q $missing >/dev/null 2>&1 && exit 0
fi
echo "note: not installed:$missing (apt-get install$missing); the tests that need them are skipped" >&2
exit 0
