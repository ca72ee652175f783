// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"testing"
)

const sessionVariable = "PORTCULLIS_TEST_SESSION"

// A connection that came in to a listener leads to the user; one that a parent has opened, or whose listener is gone,
// does not.
func TestFindSession(t *testing.T) {
	if os.Getenv(sessionVariable) != "" {
		s, err := FindSession()
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(s.Connections)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(os.Getenv(sessionVariable), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	has := func() (cameIn, wentOut bool) {
		t.Helper()
		file := t.TempDir() + "/connections"
		cmd := exec.Command(os.Args[0], "-test.run=^TestFindSession$")
		cmd.Env = append(os.Environ(), sessionVariable+"="+file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var found []Connection
		if err := json.Unmarshal(text, &found); err != nil {
			t.Fatal(err)
		}
		for _, c := range found {
			cameIn = cameIn || c.Local.String() == in.LocalAddr().String() && c.Remote.String() == in.RemoteAddr().String()
			wentOut = wentOut || c.Local.String() == out.LocalAddr().String()
		}
		return cameIn, wentOut
	}
	if cameIn, wentOut := has(); !cameIn || wentOut {
		t.Errorf("the connection that came in is found: %t, the one that went out: %t", cameIn, wentOut)
	}
	ln.Close()
	if cameIn, _ := has(); cameIn {
		t.Error("a connection to a port on which nobody listens is a witness")
	}
}

// Both list the same sockets: what SSHPorts finds, Listeners has.
func TestSSHPortsAreListeners(t *testing.T) {
	ports, err := SSHPorts()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Listeners()
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		found := false
		for _, l := range all {
			found = found || l.Local.Port() == port && !l.Local.Addr().IsLoopback()
		}
		if !found {
			t.Errorf("an sshd listens on %d, where nobody does", port)
		}
	}
}

// A kernel without sock_diag lists the same listeners, and whose they are.
func TestProcListsListeners(t *testing.T) {
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	find := func(list []Listener, err error) *Listener {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		nameProcesses(list)
		for i := range list {
			if list[i].Local.Port() == port {
				return &list[i]
			}
		}
		t.Fatalf("port %d is not listed", port)
		return nil
	}
	diag, proc := find(listenersOf(6)), find(procListeners(6, 2))
	if diag.Local != proc.Local || diag.inode != proc.inode || len(proc.Processes) != 1 || diag.Processes[0] != proc.Processes[0] {
		t.Errorf("sock_diag lists %+v, /proc %+v", diag, proc)
	}
}
