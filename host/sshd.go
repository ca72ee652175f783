// SPDX-License-Identifier: Apache-2.0

package host

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

const sshPort = 22

// SSHPorts returns the TCP ports on which an sshd listens, in order. Where systemd listens for it, the listener is not
// called sshd, so whoever listens on port 22 counts too. Anybody can call a process sshd: elsewhere only root's counts.
func SSHPorts() ([]uint16, error) {
	found, err := listenersOf(policy.TCP)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(l Listener) bool { return l.Local.Addr().IsLoopback() })
	nameProcesses(found)
	var ports []uint16
	for _, l := range found {
		if l.Local.Port() == sshPort || l.uid == 0 && slices.Contains(l.Processes, "sshd") {
			ports = append(ports, l.Local.Port())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}
