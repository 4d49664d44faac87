# shellcheck shell=bash
# A small network on one machine: hosts (each with its own network, files and syslog), switches and cables.
# Sourced by the examples, never run; knows nothing about keepalived or IPVS.
# All of it disappears with the machine that `tests/guest/run` made for it.

declare -A host_process # what keeps a host alive, by its name

# host NAME: a new host with an empty network.
host() {
    export -f private
    # The process answers when the host is ready, and then holds its namespaces open.
    # shellcheck disable=SC2016  # expanded inside
    exec 9< <(exec unshare --net --mount --uts --propagation private bash -euc '
        hostname "$1"
        ip link set lo up
        mount -t sysfs sys /sys
        # /dev, because programs find their syslog daemon at /dev/log.
        private /run /dev /var/log /var/lib/lvs-notify /etc/lvs-notify /etc/keepalived /etc/sysctl.d
        syslogd -O /var/log/messages
        echo ready
        exec sleep 1000000 # and not infinity, a word that older busyboxes do not know
    ' host "$1")
    host_process[$1]=$!
    read -r -u 9 || { echo "no host $1" >&2 && exit 1; }
    exec 9<&-
}

# private DIRECTORY...: what this host changes there, no other host sees. Starts as a copy.
private() {
    local directory
    for directory; do
        mkdir -p "$directory" /mnt
        mount -t tmpfs -o mode=755 private /mnt
        cp -a "$directory/." /mnt
        mount --move /mnt "$directory"
    done
}

# on NAME COMMAND...: runs it on that host. By its full path, because busybox's nsenter would otherwise
# take its own ip and ping.
on() {
    nsenter --target "${host_process[$1]}" --net --mount --uts "$(type -P "$2")" "${@:3}"
}

# switch NAME: connects whatever is linked to it.
switch() {
    ip link add "$1" type bridge
    ip link set "$1" up
}

# link HOST INTERFACE SWITCH ADDRESS/PREFIX: a cable. The MAC address ends in the IP address, so that
# 02:00:c0:a8:0a:01 is seen to be 192.168.10.1; of an IPv6 address in its last digits.
link() {
    local mac nodad="" last=${4%/*}
    last=${last##*:}
    # shellcheck disable=SC2046,SC2086  # four numbers are four words
    case $4 in
    *:*) mac=$(printf '02:00:00:00:%02x:%02x' "${2//[!0-9]/}" "0x$last") nodad=nodad ;;
    *) mac=$(IFS=. && printf '02:00:%02x:%02x:%02x:%02x' ${4%/*}) ;;
    esac
    ip link add "$1-$2" type veth peer name "$2" address "$mac" netns "${host_process[$1]}"
    ip link set "$1-$2" master "$3" up
    # shellcheck disable=SC2086  # a word or none
    on "$1" ip address add "$4" dev "$2" $nodad
    on "$1" ip link set "$2" up
}

# unplug HOST INTERFACE, plug HOST INTERFACE: at the switch; the host sees the carrier go and come.
unplug() { ip link set "$1-$2" down; }
plug() { ip link set "$1-$2" up; }

# mac HOST INTERFACE
mac() { on "$1" cat "/sys/class/net/$2/address"; }
