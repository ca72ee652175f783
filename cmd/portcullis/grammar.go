// SPDX-License-Identifier: Apache-2.0

package main

// ruleGrammar is what a rule may say, for help texts and manuals.
const ruleGrammar = `A rule says what it opens, and then under which conditions, in any order:

  WHAT [on IFACE,...] [from SOURCE,...] [except SOURCE,...] [to ADDRESS,...] [limit RATE [burst N]]

  WHAT      http                a service, for each protocol that /etc/services lists
            8080/tcp            a port of tcp, udp, sctp or udplite
            60000-61000/udp     a range
            80,443,8000-8100/tcp   several, of one protocol
            gre                 a protocol: ah, eigrp, esp, etherip, gre, igmp, ipcomp, ipip, 6in4,
                                ospf, pim, rsvp, vrrp, or proto/99 by its number; tcp, udp,
                                sctp and udplite stand for all ports of theirs
            all                 everything, ICMP too
  IFACE     eth0, wg*           on these interfaces only; * stands for any characters
  SOURCE    192.0.2.1, 2001:db8::/32, @office
                                an address, a network, or a list of the policy file
  ADDRESS   192.0.2.1           an address of this host, or a group, that the packet comes to
  RATE      6/minute            how often a source may begin something, in a second, minute,
                                hour or day; a /64 is one source. For TCP a SYN counts, and
                                else each packet that belongs to no flow. burst N may come at
                                once (default: 5)

There is no order among rules: what any of them lets in comes in.`

// closingNote follows what "portcullis close" does.
const closingNote = `

A rule is closed as it was opened, whatever the order of its clauses. To close part of one
is refused, with the commands that lead there.`
