// SPDX-License-Identifier: Apache-2.0

package user

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
)

const newSession = "open a new ssh session, and run \"portcullis confirm\" there"

// Witness refuses a user who does not show that this host can still be reached, since something was changed. isOld tells
// which connections are from before; console says that the terminal is at the machine, though it does not look it.
func (u *User) Witness(isOld func(host.Connection) (bool, error), console bool) error {
	s, err := u.host.FindSession()
	if err != nil {
		return fmt.Errorf("find the connection of this session: %w", err)
	}
	for _, c := range s.Connections {
		if !c.Outside() {
			return fmt.Errorf("this session came over %s, within this host, where nothing is filtered: %s", c.Remote, newSession)
		}
		old, err := isOld(c)
		if err != nil {
			return err
		}
		if old {
			return fmt.Errorf("this session's connection, from %s, is from before the change: it passes as established and proves nothing: %s", c.Remote, newSession)
		}
	}
	if len(s.Connections) > 0 {
		return nil
	}
	if len(s.Outgoing) > 0 {
		return fmt.Errorf("this session's connection, to %s, was made by this host, or to a port on which nothing listens any more, and does not show that anybody can come in: %s",
			s.Outgoing[0].Remote, newSession)
	}
	if ssh := u.ssh(); ssh != "" && cameHere(ssh) {
		return fmt.Errorf("nobody can tell by which connection this session came (%s=%q, as in tmux or screen, may be another's): %s, outside of them",
			sshVariable, ssh, newSession)
	}
	if !s.Elsewhere && !console && (s.Unknown || u.host.OnPseudoTerminal()) {
		return errors.New("cannot tell where this session came from: " + newSession + ", or say --console if this terminal is at the machine itself")
	}
	return nil
}

// cameHere reports whether the server's address in an $SSH_CONNECTION is one of this network namespace.
func cameHere(ssh string) bool {
	fields := strings.Fields(ssh)
	if len(fields) != 4 {
		return true
	}
	address, _, _ := strings.Cut(fields[2], "%")
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.ParseIP(address)) {
			return true
		}
	}
	return false
}
