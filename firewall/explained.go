// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net/netip"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// RuleLines returns the policy file of a running filter, and where its rules stand there. The error says why that cannot be
// told.
func (fw *Firewall) RuleLines(f Filter) (file string, lines map[policy.RuleKey]policy.RuleLine, err error) {
	file = fw.configOf(f)
	text, err := readTrusted(file, fw.options.Invoker...)
	if err != nil {
		return file, nil, err
	}
	lines, err = fw.newListFiles(fw.options.Invoker...).reader().RuleLines(file, text)
	return file, lines, err
}

// BlockedNetwork returns the network of a block list in force that holds an address: the widest one, where networks of the
// list lie side by side or in each other. The zero prefix is none.
func BlockedNetwork(f Filter, list string, addr netip.Addr) (found netip.Prefix, err error) {
	err = f.EachBlocked(func(by string, network netip.Prefix) {
		if by == list && network.Contains(addr) {
			found = network
		}
	})
	return found, err
}

// Route is how packets of a peer most likely come to this host.
type Route = host.Route

// RouteTo returns how packets of a peer most likely come to this host.
func (fw *Firewall) RouteTo(peer netip.Addr) (Route, error) { return fw.kernel.RouteTo(peer) }

// AddressesOn returns the addresses of an interface.
func (fw *Firewall) AddressesOn(iface string) ([]netip.Addr, error) {
	return fw.kernel.AddressesOn(iface)
}
