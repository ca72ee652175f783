// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const sshVariable = "SSH_CONNECTION"

// session is the connection by which the user of this command came to this host.
type session struct {
	client netip.Addr
	port   uint16
}

// parseSession reads "client port server port". What is no session over a network, and what never passes the filter,
// is none.
func parseSession(text string) (s session, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return s, false
	}
	client, err := netip.ParseAddr(fields[0])
	if err != nil {
		return s, false
	}
	port, err := strconv.ParseUint(fields[3], 10, 16)
	if err != nil {
		return s, false
	}
	s = session{client.WithZone("").Unmap(), uint16(port)}
	return s, !s.client.IsLoopback()
}

// survives tells whether the session could be opened anew under a policy.
func (s session) survives(p *policy.Policy) bool {
	if p.Input == policy.Accept {
		return true
	}
	for _, r := range p.Open {
		if r.Allows(policy.TCP, s.port, s.client) {
			return true
		}
	}
	return false
}

// rule is the narrowest one that lets the session in.
func (s session) rule() string { return fmt.Sprintf("%d/tcp from %s", s.port, s.client) }

func (s session) String() string { return fmt.Sprintf("%s to port %d", s.client, s.port) }

// guard refuses a policy that would lock the user of this command out.
func (a *app) guard(p *policy.Policy, remedy func(rule string) string) error {
	s, ok := parseSession(a.session())
	if !ok || s.survives(p) {
		return nil
	}
	return fmt.Errorf("this session (%s) could not be opened again: %s, or use --force", s, remedy(s.rule()))
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
	for pid := range loader.Ancestors() {
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
