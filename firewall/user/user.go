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

// meets reports whether a session's packets may come in by one of the interfaces. When that cannot be told, they may.
func (u *User) meets(s Session, filtered []string) bool {
	arrivals, err := u.host.Arrivals(host.Connection(s))
	return err != nil || len(arrivals) == 0 || len(filtered) == 0 ||
		slices.ContainsFunc(arrivals, func(name string) bool { return slices.Contains(filtered, name) })
}

// LockedOut returns the sessions that could not be opened again under a policy on the interfaces that it names.
func (u *User) LockedOut(p *policy.Policy) (out []Session) {
	for _, s := range u.sessions() {
		if !s.Survives(p) && u.meets(s, p.Interfaces) {
			out = append(out, s)
		}
	}
	return out
}
