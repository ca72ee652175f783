// SPDX-License-Identifier: Apache-2.0

package policy

// builtinTable names the services that a server most often opens, for a host
// without /etc/services or with a short one. Numbers and names are those of the
// IANA Service Name and Transport Protocol Port Number Registry; a protocol is
// listed where the service is in fact spoken over it, as distributions do,
// not wherever the registry reserved the number.
const builtinTable = `
ftp-data         20/tcp
ftp              21/tcp
ssh              22/tcp
telnet           23/tcp
smtp             25/tcp    mail
whois            43/tcp    nicname
domain           53/tcp
domain           53/udp
bootps           67/udp
bootpc           68/udp
tftp             69/udp
http             80/tcp    www
kerberos         88/tcp    kerberos5 krb5 kerberos-sec
kerberos         88/udp    kerberos5 krb5 kerberos-sec
pop3            110/tcp    pop-3
sunrpc          111/tcp    portmapper
sunrpc          111/udp    portmapper
nntp            119/tcp
ntp             123/udp
netbios-ns      137/udp
netbios-dgm     138/udp
netbios-ssn     139/tcp
imap2           143/tcp    imap
snmp            161/tcp
snmp            161/udp
snmp-trap       162/tcp    snmptrap
snmp-trap       162/udp    snmptrap
bgp             179/tcp
ldap            389/tcp
ldap            389/udp
https           443/tcp
https           443/udp
microsoft-ds    445/tcp
submissions     465/tcp    ssmtp smtps urd
isakmp          500/udp
syslog          514/udp
dhcpv6-client   546/udp
dhcpv6-server   547/udp
rtsp            554/tcp
rtsp            554/udp
submission      587/tcp
ipp             631/tcp
ldaps           636/tcp
ldaps           636/udp
domain-s        853/tcp
domain-s        853/udp
rsync           873/tcp
ftps            990/tcp
imaps           993/tcp
pop3s           995/tcp
socks          1080/tcp
openvpn        1194/tcp
openvpn        1194/udp
ms-sql-s       1433/tcp
radius         1812/tcp
radius         1812/udp
radius-acct    1813/tcp    radacct
radius-acct    1813/udp    radacct
nfs            2049/tcp
nfs            2049/udp
iscsi-target   3260/tcp
mysql          3306/tcp
ms-wbt-server  3389/tcp
stun           3478/tcp    turn
stun           3478/udp    turn
svn            3690/tcp    subversion
sieve          4190/tcp
ntske          4460/tcp
ipsec-nat-t    4500/udp
sip            5060/tcp
sip            5060/udp
sip-tls        5061/tcp    sips
sip-tls        5061/udp    sips
xmpp-client    5222/tcp    jabber-client
xmpp-server    5269/tcp    jabber-server
mdns           5353/udp
postgresql     5432/tcp    postgres
amqps          5671/tcp
amqp           5672/tcp
amqp           5672/sctp
redis          6379/tcp
http-alt       8080/tcp    webcache
http-alt       8080/udp
puppet         8140/tcp
git            9418/tcp
zabbix-agent  10050/tcp
zabbix-trapper 10051/tcp
`
