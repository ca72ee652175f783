// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"strings"
	"sync"
)

// service is what a service of firewalld opens.
type service struct {
	ports       []string // PORT/PROTOCOL, or a protocol alone
	sourcePorts []string
	to          [2]string // the addresses that it is for, by family
	includes    []string
}

// knownServices are the common ones of firewalld 1.3, for where its own files are not given.
const knownServices = `
afp 548/tcp
amqp 5672/tcp
amqps 5671/tcp
bgp 179/tcp
bitcoin 8333/tcp
ceph 6800-7300/tcp
ceph-mon 3300/tcp 6789/tcp
cockpit 9090/tcp
cfengine 5308/tcp
dhcp 67/udp
dhcpv6 547/udp
dhcpv6-client 546/udp to -,fe80::/64
dns 53/tcp 53/udp
dns-over-tls 853/tcp
docker-registry 5000/tcp
docker-swarm 2377/tcp 7946/tcp 7946/udp 4789/udp esp
elasticsearch 9200/tcp 9300/tcp
etcd-client 2379/tcp
etcd-server 2380/tcp
finger 79/tcp
freeipa-ldap 80/tcp 443/tcp 88/tcp 88/udp 464/tcp 464/udp 123/udp 389/tcp
freeipa-ldaps 80/tcp 443/tcp 88/tcp 88/udp 464/tcp 464/udp 123/udp 636/tcp
ftp 21/tcp
git 9418/tcp
grafana 3000/tcp
gre gre
high-availability 2224/tcp 3121/tcp 5403/tcp 5404/udp 5405-5412/udp 9929/tcp 9929/udp 21064/tcp
http 80/tcp
http3 443/udp
https 443/tcp
imap 143/tcp
imaps 993/tcp
ipp 631/tcp 631/udp
ipp-client 631/udp
ipsec ah esp 500/udp 4500/udp 4500/tcp
ircs 6697/tcp
iscsi-target 3260/tcp 3260/udp
kerberos 88/tcp 88/udp
kibana 5601/tcp
kpasswd 464/tcp 464/udp
kprop 754/tcp
ldap 389/tcp
ldaps 636/tcp
libvirt 16509/tcp
libvirt-tls 16514/tcp
llmnr with llmnr-tcp with llmnr-udp
llmnr-tcp 5355/tcp
llmnr-udp 5355/udp to 224.0.0.252,ff02::1:3
managesieve 4190/tcp
mdns 5353/udp to 224.0.0.251,ff02::fb
memcache 11211/tcp 11211/udp
minidlna 8200/tcp with ssdp
mongodb 27017/tcp
mosh 60000-61000/udp
mountd 20048/tcp 20048/udp
mqtt 1883/tcp
mqtt-tls 8883/tcp
mssql 1433/tcp
mysql 3306/tcp
netbios-ns 137/udp
nfs 2049/tcp
nfs3 2049/tcp 2049/udp
nrpe 5666/tcp
ntp 123/udp
openvpn 1194/udp
pop3 110/tcp
pop3s 995/tcp
postgresql 5432/tcp
privoxy 8118/tcp
prometheus 9090/tcp
proxy-dhcp 4011/udp
ptp 319/udp 320/udp
puppetmaster 8140/tcp
quassel 4242/tcp
radius 1812/tcp 1812/udp 1813/tcp 1813/udp
rdp 3389/tcp
redis 6379/tcp
redis-sentinel 26379/tcp
rpc-bind 111/tcp 111/udp
rquotad 875/tcp 875/udp
rsh 514/tcp
rsyncd 873/tcp 873/udp
samba 139/tcp 445/tcp with samba-client
samba-client 138/udp with netbios-ns
samba-dc 135/tcp 389/udp 3268/tcp 3269/tcp 49152-65535/tcp with samba with dns with kerberos with ldap with ldaps with kpasswd
sip 5060/tcp 5060/udp
sips 5061/tcp 5061/udp
smtp 25/tcp
smtp-submission 587/tcp
smtps 465/tcp
snmp 161/tcp 161/udp
snmptrap 162/tcp 162/udp
squid 3128/tcp
ssh 22/tcp
ssdp 1900/udp to 239.255.255.250,ff02::c
svn 3690/tcp
syncthing 22000/tcp 22000/udp 21027/udp
syncthing-gui 8384/tcp
syslog 514/udp
syslog-tls 6514/tcp 6514/udp
telnet 23/tcp
tftp 69/udp
tor-socks 9050/tcp
transmission-client 51413/tcp 51413/udp
vnc-server 5900-5903/tcp
wbem-http 5988/tcp
wbem-https 5989/tcp
wireguard 51820/udp
wsman 5985/tcp
wsmans 5986/tcp
xmpp-client 5222/tcp
xmpp-server 5269/tcp
zabbix-agent 10050/tcp
zabbix-server 10051/tcp
`

var builtinServices = sync.OnceValue(func() map[string]*service {
	all := make(map[string]*service)
	for line := range strings.Lines(strings.TrimSpace(knownServices)) {
		words := strings.Fields(line)
		s := &service{}
		for i := 1; i < len(words); i++ {
			switch words[i] {
			case "to":
				four, six, _ := strings.Cut(words[i+1], ",")
				s.to = [2]string{four, six}
				i++
			case "with":
				s.includes = append(s.includes, words[i+1])
				i++
			default:
				s.ports = append(s.ports, words[i])
			}
		}
		all[words[0]] = s
	}
	return all
})

// builtinZones are those that firewalld comes with, as their files have them.
var builtinZones = map[string]string{
	"public":   `<zone><service name="ssh"/><service name="dhcpv6-client"/></zone>`,
	"external": `<zone><service name="ssh"/><masquerade/></zone>`,
	"dmz":      `<zone><service name="ssh"/></zone>`,
	"work":     `<zone><service name="ssh"/><service name="dhcpv6-client"/></zone>`,
	"home":     `<zone><service name="ssh"/><service name="mdns"/><service name="samba-client"/><service name="dhcpv6-client"/></zone>`,
	"internal": `<zone><service name="ssh"/><service name="mdns"/><service name="samba-client"/><service name="dhcpv6-client"/></zone>`,
	"trusted":  `<zone target="ACCEPT"/>`,
	"block":    `<zone target="%%REJECT%%"/>`,
	"drop":     `<zone target="DROP"/>`,
}

// parseService reads the file of a service. A port without a number is a
// protocol.
func parseService(n *node) *service {
	s := &service{}
	for _, c := range n.children {
		port, protocol := c.attr("port"), c.attr("protocol")
		switch c.name {
		case "port":
			if port == "" {
				s.ports = append(s.ports, protocol)
			} else {
				s.ports = append(s.ports, port+"/"+protocol)
			}
		case "protocol":
			s.ports = append(s.ports, c.attr("value"))
		case "source-port":
			s.sourcePorts = append(s.sourcePorts, port+"/"+protocol)
		case "destination":
			s.to = [2]string{c.attr("ipv4"), c.attr("ipv6")}
			for f, to := range s.to {
				if to == "" {
					s.to[f] = "-" // not for this family
				}
			}
		case "include":
			s.includes = append(s.includes, c.attr("service"))
		}
	}
	return s
}
