// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

const sshVariable = "SSH_CONNECTION"

// session is a connection by which somebody came to this host: the user of this command, as far as can be told.
type session host.Connection

// parseSession reads "client port server port". What is no session over a network, and what never passes the filter,
// is none.
func parseSession(text string) (s session, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return s, false
	}
	end := func(addr, port string) (netip.AddrPort, error) {
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			return netip.AddrPort{}, err
		}
		number, err := strconv.ParseUint(port, 10, 16)
		return netip.AddrPortFrom(ip.WithZone("").Unmap(), uint16(number)), err
	}
	var errs [2]error
	s.Remote, errs[0] = end(fields[0], fields[1])
	s.Local, errs[1] = end(fields[2], fields[3])
	return s, errors.Join(errs[:]...) == nil && !s.Remote.Addr().IsLoopback()
}

// survives tells whether the session could be opened anew under a policy.
func (s session) survives(p *policy.Policy) bool {
	allows := func(r policy.Rule) bool { return r.Allows(policy.TCP, s.Local.Port(), s.Remote.Addr()) }
	return p.Input == policy.Accept || slices.ContainsFunc(p.Open, allows)
}

// rule is the narrowest one that lets the session in.
func (s session) rule() string { return fmt.Sprintf("%d/tcp from %s", s.Local.Port(), s.Remote.Addr()) }

func (s session) String() string {
	return fmt.Sprintf("%s to port %d", s.Remote.Addr(), s.Local.Port())
}

// loss says that a policy would lock the session out, and what its file lacks.
func (s session) loss(file string) string {
	return fmt.Sprintf("this session (%s) could not be opened again: add %q to %s", s, s.rule(), file)
}

// sessions returns those of which one may be the user's. What the environment says is true as long as that connection
// lives. In tmux, screen and their like it may have ended since, and the user have come by another one: then all that
// are open to an sshd count, and only when there is none, as under mosh, what the environment says.
func (a *app) sessions() []session {
	recorded, ok := parseSession(a.session())
	if !ok {
		return nil
	}
	ports, _ := a.firewall.SSHPorts() // without them, the recorded one has to do
	live, _ := a.firewall.ConnectionsAt(append(ports, recorded.Local.Port()))
	if len(live) == 0 || slices.Contains(live, host.Connection(recorded)) {
		return []session{recorded}
	}
	out := make([]session, len(live))
	for i, c := range live {
		out[i] = session(c)
	}
	return out
}

// meets tells whether a session's packets may come in by one of the interfaces. When that cannot be told, they may.
func (a *app) meets(s session, filtered []string) bool {
	arrivals, err := a.firewall.Arrivals(host.Connection(s))
	return err != nil || len(arrivals) == 0 || len(filtered) == 0 ||
		slices.ContainsFunc(arrivals, func(name string) bool { return slices.Contains(filtered, name) })
}

// lockedOut returns the sessions that could not be opened again under a policy on the interfaces that it names.
func (a *app) lockedOut(p *policy.Policy) (out []session) {
	for _, s := range a.sessions() {
		if !s.survives(p) && a.meets(s, p.Interfaces) {
			out = append(out, s)
		}
	}
	return out
}

// guard refuses a policy, which is to come from a file, that would lock the user of this command out.
func (a *app) guard(p *policy.Policy, file string) error {
	for _, s := range a.lockedOut(p) {
		return fmt.Errorf("%s, or use --force", s.loss(file))
	}
	return nil
}

// unreachable warns of an sshd that nobody could reach any more, also where there is no session to guard.
func (a *app) unreachable(p *policy.Policy) (warnings []string) {
	ports, err := a.firewall.SSHPorts()
	if err != nil || p.Input == policy.Accept {
		return nil
	}
	for _, port := range ports {
		if !slices.ContainsFunc(p.Open, func(r policy.Rule) bool { return r.Covers(policy.TCP, port) }) {
			warnings = append(warnings, fmt.Sprintf("an sshd listens on port %d, which no rule opens", port))
		}
	}
	return warnings
}

// sshConnection returns $SSH_CONNECTION. sudo takes it out of the environment, so it may be a parent's; but a parent
// in another network namespace did not come to this host.
func sshConnection() string {
	if own := os.Getenv(sshVariable); own != "" {
		return own
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	for pid := range host.Ancestors() {
		dir := fmt.Sprintf("/proc/%d/", pid)
		if there, err := os.Readlink(dir + "ns/net"); err != nil || there != here {
			return ""
		}
		environ, _ := os.ReadFile(dir + "environ")
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte(sshVariable+"=")); ok && len(value) > 0 {
				return string(value)
			}
		}
	}
	return ""
}
