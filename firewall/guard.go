// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// sessions returns those of which one may be the user's. What the environment says is true as long as that connection
// lives. In tmux, screen and their like it may have ended since, and the user have come by another one: then all that
// are open to an sshd count, and only when there is none, as under mosh, what the environment says.
func (fw *Firewall) sessions() []session {
	recorded, ok := parseSession(fw.options.Session())
	if !ok {
		return nil
	}
	// Where the sockets cannot be listed, the recorded one has to do.
	ports, err := fw.kernel.SSHPorts()
	if err != nil {
		return []session{recorded}
	}
	live, err := fw.kernel.ConnectionsAt(append(ports, recorded.Local.Port()))
	if err != nil || len(live) == 0 || slices.Contains(live, host.Connection(recorded)) {
		return []session{recorded}
	}
	out := make([]session, len(live))
	for i, c := range live {
		out[i] = session(c)
	}
	return out
}

// meets reports whether a session's packets may come in by one of the interfaces. When that cannot be told, they may.
func (fw *Firewall) meets(s session, filtered []string) bool {
	arrivals, err := fw.kernel.Arrivals(host.Connection(s))
	return err != nil || len(arrivals) == 0 || len(filtered) == 0 ||
		slices.ContainsFunc(arrivals, func(name string) bool { return slices.Contains(filtered, name) })
}

// lockedOut returns the sessions that could not be opened again under a policy on the interfaces that it names.
func (fw *Firewall) lockedOut(p *policy.Policy) (out []session) {
	for _, s := range fw.sessions() {
		if !s.survives(p) && fw.meets(s, p.Interfaces) {
			out = append(out, s)
		}
	}
	return out
}

// guard refuses a policy, which is to come from a file, that would lock the user out.
func (fw *Firewall) guard(p *policy.Policy, file string) error {
	for _, s := range fw.lockedOut(p) {
		return fmt.Errorf("%s, or use --force", s.loss(file))
	}
	return nil
}

// guardClose refuses to close what the user came in by. A session that could not be opened again before is no worse off.
func (fw *Firewall) guardClose(before, after *policy.Policy) error {
	for _, s := range fw.lockedOut(after) {
		if s.survives(before) {
			return fmt.Errorf("this session (%s) could not be opened again: run \"portcullis open %s\" first, or use --force", s, s.rule())
		}
	}
	return nil
}

// closedSSH returns the ports on which an sshd listens and that no rule of the policy opens to anybody.
func (fw *Firewall) closedSSH(p *policy.Policy) (closed, open []uint16, err error) {
	ports, err := fw.kernel.SSHPorts()
	if err != nil {
		return nil, nil, fmt.Errorf("find the ports of sshd: %w", err)
	}
	for _, port := range ports {
		if p.Input == policy.Accept || slices.ContainsFunc(p.Open, func(r policy.Rule) bool { return r.Covers(policy.TCP, port) }) {
			open = append(open, port)
		} else {
			closed = append(closed, port)
		}
	}
	return closed, open, nil
}

// unreachable warns of an sshd that nobody could reach any more, also where there is no session to guard.
func (fw *Firewall) unreachable(p *policy.Policy) (warnings []string) {
	if p.Input == policy.Accept {
		return nil
	}
	closed, _, err := fw.closedSSH(p)
	if err != nil {
		return []string{err.Error()}
	}
	for _, port := range closed {
		warnings = append(warnings, fmt.Sprintf("an sshd listens on port %d, which no rule opens", port))
	}
	return warnings
}
