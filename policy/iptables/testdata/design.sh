#!/bin/sh
# The first script that every new server gets.
iptables -F; iptables -X
iptables -P FORWARD DROP
iptables -P INPUT DROP                      # OUTPUT stays ACCEPT
iptables -A INPUT -i eth0 -m state --state ESTABLISHED,RELATED -j ACCEPT
iptables -A INPUT -i eth0 -p tcp --dport http -j ACCEPT
iptables -A INPUT -i eth0 -p icmp -j ACCEPT
iptables-save > /etc/iptables.rules
