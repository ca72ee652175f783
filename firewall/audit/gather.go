// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
)

// Gather returns all that is compared but the policy. Without root it does not know what is published; the error that
// says so comes with the rest.
func Gather(ctx context.Context) (*Input, error) {
	in := &Input{}
	var err error
	if in.Listeners, err = host.Listeners(); err != nil {
		return nil, err
	}
	if lo, err := net.InterfaceByName("lo"); err == nil {
		in.Loopback = lo.Index
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			in.Local = append(in.Local, p.Addr())
		}
	}
	if in.Ephemeral[0], in.Ephemeral[1], err = host.ClientPorts(); err != nil {
		return nil, err
	}
	ruleset, err := netfilter.Read(ctx)
	in.Published = ruleset.Published
	return in, err
}
