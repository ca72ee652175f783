// SPDX-License-Identifier: Apache-2.0

// Package netfilter reads what netfilter does on this host beside Portcullis:
// which chains filter what comes in as well, and which ports DNAT publishes.
package netfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Ruleset is what is in force in this network namespace.
type Ruleset struct {
	Filters   []Filter
	Published []Published
}

// Filter is a chain that drops some of what comes in.
type Filter struct {
	Family, Table, Chain string
	Drops                bool // by default, as its policy
	Rules                int
	Owner                string   // iptables, nft, ufw, firewalld ...
	Bans                 []string // the tools that ban addresses by it, as fail2ban does
	OnlyBans             bool     // it drops nothing else
	Remove               []string // the commands that make it accept what is not banned
}

// Published is a range of ports of this host that DNAT leads to somebody else.
type Published struct {
	Protocol    policy.Protocol
	Destination netip.Prefix // the addresses of this host; the zero prefix is all of them
	First, Last uint16
	To          string // ADDRESS:PORT
}

// Read returns what the kernel says, which takes CAP_NET_ADMIN; tables of iptables-legacy are read by its own tools. An
// error comes with what was read before.
func Read(ctx context.Context) (*Ruleset, error) {
	r := &Ruleset{}
	if err := r.readTables(); err != nil {
		return r, fmt.Errorf("list the nftables ruleset: %w", err)
	}
	return r, r.readLegacy(ctx)
}

// match is what a rule, and those that led to it, ask of a packet.
type match struct {
	protocol    policy.Protocol // 0 is any
	destination netip.Prefix
	ports       [][2]uint16 // first and last
}

// publish enters a rule that rewrites destinations.
func (r *Ruleset) publish(m match, to string) {
	if policy.ProtocolIndex(m.protocol) < 0 {
		return // all protocols, or one without ports: a host behind this one, not a service
	}
	for _, ports := range m.ports {
		r.Published = append(r.Published, Published{m.protocol, m.destination, ports[0], ports[1], to})
	}
}

var errNoTool = errors.New("there are tables of iptables-legacy, and no iptables-legacy-save to read them")
