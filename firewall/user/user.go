// SPDX-License-Identifier: Apache-2.0

package user

import (
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Host is what is asked of the host that a user is at.
type Host interface {
	SSHPorts() ([]uint16, error)
	Addresses() ([]netip.Addr, error) // but for the loopback's
	ConnectionsAt(ports []uint16) ([]host.Connection, error)
	Arrivals(host.Connection) ([]string, error)
	FindSession() (*host.Session, error)
	OnPseudoTerminal() bool
}

// User is the user of this process.
type User struct {
	host Host
	ssh  func() string
}

// New returns the user at a host. ssh returns the $SSH_CONNECTION of his session.
func New(h Host, ssh func() string) *User { return &User{h, ssh} }

// Recorded returns the session that the environment tells of.
func (u *User) Recorded() (Session, bool) { return ParseSession(u.ssh()) }

// sessions returns those of which one may be the user's. What the environment says is true as long as that connection
// lives. In tmux, screen and their like it may have ended since, and the user have come by another one: then all that
// are open to an sshd count, and only when there is none, as under mosh, what the environment says.
func (u *User) sessions() []Session {
	recorded, ok := u.Recorded()
	if !ok {
		return nil
	}
	// Where the sockets cannot be listed, the recorded one has to do.
	ports, err := u.host.SSHPorts()
	if err != nil {
		return []Session{recorded}
	}
	live, err := u.host.ConnectionsAt(append(ports, recorded.Local.Port()))
	if err != nil || len(live) == 0 || slices.Contains(live, host.Connection(recorded)) {
		return []Session{recorded}
	}
	out := make([]Session, len(live))
	for i, c := range live {
		out[i] = Session(c)
	}
	return out
}

// Survives reports whether a session could be opened anew under a policy on the interfaces that it names. It has to be let
// in on each of them by which its packets may come, so that nobody is locked out by a guess.
func (u *User) Survives(s Session, p *policy.Policy) bool {
	filtered := p.Interfaces
	if arrivals, err := u.host.Arrivals(host.Connection(s)); err == nil && len(arrivals) > 0 && len(filtered) > 0 {
		filtered = slices.DeleteFunc(slices.Clone(arrivals), func(name string) bool { return !policy.MatchAnyInterface(filtered, name) })
		if len(filtered) == 0 {
			return true // it meets no filter
		}
	}
	if len(filtered) == 0 {
		filtered = []string{""} // which no rule names
	}
	return !slices.ContainsFunc(filtered, func(iface string) bool {
		first := policy.Packet{Interface: iface, Protocol: policy.TCP, Port: s.Local.Port(), Source: s.Remote.Addr(), Destination: s.Local.Addr()}
		return inputOf(p, iface) != policy.Accept && !slices.ContainsFunc(p.Open, func(r policy.Rule) bool { return r.Admits(first) })
	})
}

// inputOf returns what becomes of packets that come in by an interface and that no rule lets in.
func inputOf(p *policy.Policy, iface string) policy.Verdict {
	settings := *p
	settings.Open = nil
	return settings.For(iface).Input
}

// LockedOut returns the sessions that could not be opened again under a policy on the interfaces that it names.
func (u *User) LockedOut(p *policy.Policy) (out []Session) {
	for _, s := range u.sessions() {
		if !u.Survives(s, p) {
			out = append(out, s)
		}
	}
	return out
}
