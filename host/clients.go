// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Clients knows which ports are in use by connections that this host has made itself: those that the kernel hands out and
// on which nothing listens.
type Clients struct {
	first, last uint16
	listening   map[service]bool
}

type service struct {
	protocol policy.Protocol
	port     uint16
}

// ReadClients returns them as they are now.
func ReadClients() (*Clients, error) {
	c := &Clients{listening: make(map[service]bool)}
	var err error
	if c.first, c.last, err = ClientPorts(); err != nil {
		return nil, err
	}
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP} {
		found, err := listenersOf(protocol)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			c.listening[service{protocol, l.Local.Port()}] = true
		}
	}
	return c, nil
}

// Has reports whether a port is one of them.
func (c *Clients) Has(protocol policy.Protocol, port uint16) bool {
	return (protocol == policy.TCP || protocol == policy.UDP) && c.first <= port && port <= c.last && !c.listening[service{protocol, port}]
}

// ClientPorts returns the ports that the kernel hands out, first and last.
func ClientPorts() (first, last uint16, err error) {
	text, err := Sysctl(nil, "net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(text, &first, &last)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read which ports clients get: %w", err)
	}
	return first, last, nil
}
