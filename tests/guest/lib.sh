# shellcheck shell=bash
# What `run` and `image` both do to a directory that becomes the root of a guest: put files where the
# guest looks for them, bring the shared libraries along, make an archive of it. And the packages of the guest's
# programs, which `install` brings here and `image` has from another release.
# Sourced, never run; decides nothing about what belongs into a guest.

# The packages whose programs the guest has. iputils-arping and not arping: only it has duplicate address detection
# (-D), and it prints one plain line per answer. netbase is /etc/services.
# shellcheck disable=SC2034  # read by those who source this
guest_packages=(busybox-static curl e2fsprogs ethtool iproute2 iputils-arping iputils-ping ipvsadm keepalived kmod ndisc6
    netbase nftables procps strace tcpdump)

# The system programs live outside of an ordinary user's PATH on Debian.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# Directories get the same mode in the guest whoever packs them.
umask 022
# Messages of other programs are read.
export LC_ALL=C

die() { # MESSAGE...
    printf 'tests/guest/%s: %s\n' "${0##*/}" "$*" >&2
    exit 125
}

# The guest has one directory for programs and one for libraries, so that every traditional absolute
# path works. An archive must name the real directory: the kernel would replace a link by a directory.
guest_path() { # PATH
    case $1 in
    /bin/* | /sbin/*) echo "/usr/bin/${1#/*bin/}" ;;
    /usr/sbin/*) echo "/usr/bin/${1#/usr/sbin/}" ;;
    /lib/* | /lib32/* | /lib64/*) echo "/usr$1" ;;
    *) echo "$1" ;;
    esac
}

add_file() { # ROOT FILE GUESTPATH
    local path
    path=$1$(guest_path "$3")
    mkdir -p "${path%/*}"
    cp --dereference --preserve=mode,timestamps "$2" "$path"
}

add_libraries() { # ROOT FROM: those that ldd names on stdin, from the machine whose root is FROM (empty: this one)
    local list library
    list=$(cat)
    if grep -F 'not found' <<<"$list" >&2; then die "a program needs libraries that ${2:-this machine} lacks"; fi
    while read -r library; do
        add_file "$1" "$2$library" "$library"
    done < <(grep '^[[:space:]]' <<<"$list" | grep -oE '(^|[[:space:]])/[^[:space:]]+' | sort -u)
}

archive() { # ROOT: as a cpio archive to stdout, all of it owned by root whoever packs it
    (cd "$1" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio --null --quiet -o -H newc -R +0:+0)
}
