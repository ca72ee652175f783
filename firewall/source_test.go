// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// sshd is a host on which an sshd listens.
type sshd struct {
	HostKernel
	ports []uint16
}

func (s sshd) SSHPorts() ([]uint16, error) { return s.ports, nil }

func TestWhatIsBuiltIn(t *testing.T) {
	fw := New(Options{Kernel: sshd{ports: []uint16{22, 2222}}})
	for text, want := range map[string]bool{"{}": true, "open: [ssh]": true, "open: [22/tcp, 2222/tcp]": true, "open: [http]": false,
		"open: [22/tcp from 192.0.2.1]": false, "icmp: drop": false, "open: [22-2222/tcp]": false} {
		p, err := policy.Parse("fw.yaml", []byte(text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := fw.isBuiltIn(p); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}
