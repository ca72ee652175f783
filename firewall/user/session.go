// SPDX-License-Identifier: Apache-2.0

// Package user says who the user is: by which connections he may have come to this host, and whether he could come again.
package user

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
)

const sshVariable = "SSH_CONNECTION"

// Session is a connection by which somebody came to this host: the user, as far as can be told.
type Session host.Connection

// ParseSession reads "client port server port". What is no session over a network, and what never passes the filter,
// is none.
func ParseSession(text string) (s Session, ok bool) {
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

// Rule returns the narrowest rule that lets the session in.
func (s Session) Rule() string { return fmt.Sprintf("%d/tcp from %s", s.Local.Port(), s.Remote.Addr()) }

func (s Session) String() string {
	return fmt.Sprintf("%s to port %d", s.Remote.Addr(), s.Local.Port())
}

// Loss says that a policy would lock the session out, and what its file lacks.
func (s Session) Loss(file string) string {
	return fmt.Sprintf("this session (%s) could not be opened again: add %q to %s", s, s.Rule(), file)
}

// FindSSHConnection returns $SSH_CONNECTION of the user's session. sudo takes it out of the environment, so it may be a
// parent's; but a parent in another network namespace did not come to this host.
func FindSSHConnection() string {
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
		environ, err := os.ReadFile(dir + "environ")
		if err != nil {
			continue // another user's: its environment cannot be this user's session
		}
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte(sshVariable+"=")); ok && len(value) > 0 {
				return string(value)
			}
		}
	}
	return ""
}
