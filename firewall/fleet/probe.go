// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Probe is a connection that has to succeed under a new policy. Its text is "connect ADDRESS:PORT" for one that the host
// makes, and "22/tcp from h2,h3" for one that another host of the fleet makes to it.
type Probe struct {
	Connect string   // ADDRESS:PORT, or ""
	Port    uint16   // of the host
	From    []string // hosts, of which one is enough
}

const probeForms = "write \"connect ADDRESS:PORT\" for a connection that the host makes, or \"22/tcp from h2,h3\" for one that another host makes to it"

// ParseProbe reads the text of a probe.
func ParseProbe(text string) (Probe, error) {
	bad := fmt.Errorf("probe %q: %s", text, probeForms)
	words := strings.Fields(text)
	if len(words) == 2 && words[0] == "connect" {
		p := Probe{Connect: words[1]}
		if p.check() != nil {
			return Probe{}, bad
		}
		return p, nil
	}
	if len(words) != 3 || words[1] != "from" {
		return Probe{}, bad
	}
	number, found := strings.CutSuffix(words[0], "/tcp")
	port, err := strconv.ParseUint(number, 10, 16)
	if !found || err != nil || port == 0 {
		return Probe{}, bad
	}
	p := Probe{Port: uint16(port), From: strings.Split(words[2], ",")}
	return p, p.check()
}

func (p Probe) check() error {
	if p.Connect != "" {
		host, port, err := net.SplitHostPort(p.Connect)
		if number, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || number == 0 {
			return fmt.Errorf("probe %q: %s", p, probeForms)
		}
		return nil
	}
	if p.Port == 0 || len(p.From) == 0 {
		return fmt.Errorf("a probe without a port: %s", probeForms)
	}
	for _, name := range p.From {
		if err := CheckHost(name); err != nil {
			return err
		}
	}
	return nil
}

func (p Probe) String() string {
	if p.Connect != "" {
		return "connect " + p.Connect
	}
	return fmt.Sprintf("%d/tcp from %s", p.Port, strings.Join(p.From, ","))
}

// MarshalText implements [encoding.TextMarshaler].
func (p Probe) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Probe) UnmarshalText(text []byte) (err error) {
	*p, err = ParseProbe(string(text))
	return err
}

// Peers returns the hosts that probe others by this bundle.
func (s *Settings) Peers() (names []string) {
	for _, p := range s.Probes {
		names = append(names, p.From...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
