// SPDX-License-Identifier: Apache-2.0

package user

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Guard refuses a policy, which is to come from a file, that would lock the user out.
func (u *User) Guard(p *policy.Policy, file string) error {
	if p.WatchOnly { // nobody is locked out before it is enforced, which is asked for then
		return nil
	}
	for _, s := range u.LockedOut(p) {
		return fmt.Errorf("%s, or use --force", s.Loss(file))
	}
	return nil
}

// GuardClose refuses to close what the user came in by. A session that could not be opened again before is no worse off.
func (u *User) GuardClose(before, after *policy.Policy) error {
	for _, s := range u.LockedOut(after) {
		if u.Survives(s, before) {
			return fmt.Errorf("this session (%s) could not be opened again: run \"portcullis open %s\" first, or use --force", s, s.Rule())
		}
	}
	return nil
}

// SSHReach returns the ports on which an sshd listens: those that no rule of the policy opens to anybody who could come,
// and the others.
func (u *User) SSHReach(p *policy.Policy) (closed, open []uint16, err error) {
	ports, err := u.host.SSHPorts()
	if err != nil {
		return nil, nil, fmt.Errorf("find the ports of sshd: %w", err)
	}
	own, err := u.host.Addresses()
	if err != nil {
		return nil, nil, err
	}
	for _, port := range ports {
		if isWayIn(p, port, own) {
			open = append(open, port)
		} else {
			closed = append(closed, port)
		}
	}
	return closed, open, nil
}

// isWayIn reports whether a policy lets somebody come to a port on one of its interfaces.
func isWayIn(p *policy.Policy, port uint16, own []netip.Addr) bool {
	interfaces := p.Interfaces
	if len(interfaces) == 0 {
		interfaces = []string{""}
	}
	return slices.ContainsFunc(interfaces, func(name string) bool { return inputOf(p, name) == policy.Accept }) ||
		slices.ContainsFunc(p.InputRules(), func(r policy.Rule) bool {
			return r.Covers(policy.TCP, port) && isOnOneOf(r, interfaces) && letsOthersIn(r, own)
		})
}

// isOnOneOf reports whether a rule counts on one of some interfaces, or of those that patterns stand for.
func isOnOneOf(r policy.Rule, interfaces []string) bool {
	return slices.ContainsFunc(interfaces, func(name string) bool {
		return r.AppliesOn(name) || policy.IsPattern(name) && slices.ContainsFunc(r.On, func(on string) bool { return policy.MatchInterface(name, on) })
	})
}

// letsOthersIn reports whether a rule has a source from which another host can come to one with these addresses. Without
// any address, as before the network is configured, it may get any.
func letsOthersIn(r policy.Rule, own []netip.Addr) bool {
	if len(own) > 0 && len(r.To) > 0 && !slices.ContainsFunc(own, func(addr netip.Addr) bool { return contains(r.To, addr) }) {
		return false
	}
	if len(r.From) == 0 || r.Anyone() || len(own) == 0 {
		return r.AllowsOthers()
	}
	r.From = slices.DeleteFunc(slices.Clone(r.From), func(from netip.Prefix) bool {
		return from.IsSingleIP() && slices.Contains(own, from.Addr()) || !slices.ContainsFunc(own, func(to netip.Addr) bool { return talks(from, to) })
	})
	return len(r.From) > 0 && r.AllowsOthers()
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// talks reports whether somebody from a source may talk to an address: in its family, and from beyond the link to none
// that is valid on the link alone.
func talks(from netip.Prefix, to netip.Addr) bool {
	const linkLocalBits = 10 // of fe80::/10
	return from.Addr().Is4() == to.Is4() &&
		(to.Is4() || !to.IsLinkLocalUnicast() || from.Addr().IsLinkLocalUnicast() || from.Bits() < linkLocalBits)
}

// Unreachable warns of an sshd that nobody could reach any more, also where there is no session to guard.
func (u *User) Unreachable(p *policy.Policy) (warnings []string) {
	closed, _, err := u.SSHReach(p)
	if err != nil {
		return []string{err.Error()}
	}
	for _, port := range closed {
		warnings = append(warnings, fmt.Sprintf("an sshd listens on port %d, which no rule opens: add \"%d/tcp\" to let ssh in", port, port))
	}
	return warnings
}
