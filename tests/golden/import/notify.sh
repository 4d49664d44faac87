#!/bin/bash
# notify script of VI_1
IPVSADM=/sbin/ipvsadm
VIP="192.0.2.1"; export PORT=80
RIPS="203.0.113.1 203.0.113.2"
WEIGHT=`cat /etc/weight`

start_lvs() {
    if [ -n "$1" ]; then logger "starting $1"; fi
    ip addr add $VIP/32 dev lo label lo:0
    echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore
    $IPVSADM -C
    $IPVSADM -A -t ${VIP}:$PORT -s wrr \
        -p 300
    for rip in $RIPS 203.0.113.3; do
        $IPVSADM -a -t $VIP:$PORT -r $rip:$PORT -g -w 2 2>/dev/null || exit 1
    done
    ipvsadm -a -t "$VIP:$PORT" -r 203.0.113.9 -w $WEIGHT
    ipvsadm -R <<EOF
-A -u $VIP:53 -s rr
-a -u $VIP:53 -r 203.0.113.1:53 -m
EOF
    ipvsadm --restore <<-'END'
	-A -f 7 -s rr
	END
    ipvsadm -R < /etc/ipvsadm.rules
}
case "$1" in
    master|MASTER) start_lvs "$1"; ipvsadm --start-daemon master --mcast-interface eth1 --syncid 3 ;;
    backup)
        ipvsadm -C; ipvsadm --start-daemon backup --mcast-interface eth1 --syncid 3
        ;;
    (fault) /sbin/ipvsadm -A -t $VIP:$PORT -s rr ;;
    *) echo "usage: $0 {master|backup}"
esac
arping -c 3 -U -I eth0 $VIP &
