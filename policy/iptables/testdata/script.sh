#!/bin/bash
# A script as it grows over the years.
IPT="/sbin/iptables -w"
IP6=/sbin/ip6tables
WAN=eth0
TRUSTED="203.0.113.0/24 198.51.100.17"
MYIP=$(ip -4 addr show $WAN | awk '/inet / {print $2}')

modprobe nf_conntrack_ftp
echo 1 > /proc/sys/net/ipv4/tcp_syncookies
echo "Starting firewall"

for t in "$IPT" "$IP6"; do
    $t -F
    $t -X
    $t -P INPUT DROP
    $t -P FORWARD DROP
    $t -P OUTPUT ACCEPT
    $t -N TCP
    $t --append INPUT --in-interface lo --jump ACCEPT
    $t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    $t -A INPUT -i $WAN -p tcp --syn -j TCP
done

for net in $TRUSTED; do
    sudo $IPT -A TCP -s $net -p tcp --dport ssh -j ACCEPT
done
allow() {
    $IPT -A TCP -p tcp --dport $1 -j ACCEPT
    $IP6 -A TCP -p tcp --dport $1 -j ACCEPT
}
allow http
allow imaps
$IPT -A INPUT -i $WAN -d $MYIP -p udp --dport 1194 -j ACCEPT
$IPT -A INPUT -i $WAN -p icmp --icmp-type echo-request \
    -j ACCEPT
$IP6 -A INPUT -i $WAN -p icmpv6 -j ACCEPT
$IPT -I TCP 1 -s 203.0.113.66 -j DROP
$IPT -A TCP -p tcp --dport telnet -j ACCEPT
$IPT -D TCP -p tcp --dport telnet -j ACCEPT
if [ -f /etc/blocked ]; then
    $IPT -I INPUT -i $WAN -p tcp --dport 993 -m string --string evil --algo bm -j DROP
fi
$IPT -t nat -A PREROUTING -i $WAN -p tcp --dport 8080 -j REDIRECT --to-ports 80
$IPT -A OUTPUT -p tcp --dport 25 -j REJECT
iptables-save > /etc/iptables/rules.v4 || exit 1
