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
	text, err := host.Sysctl(nil, "net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(text, &in.Ephemeral[0], &in.Ephemeral[1])
	}
	if err != nil {
		return nil, fmt.Errorf("read which ports clients get: %w", err)
	}
	ruleset, err := netfilter.Read(ctx)
	in.Published = ruleset.Published
	return in, err
}
