// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pseudoTerminal returns both ends of one, of which the second is what a program sees.
func pseudoTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return screen, terminal
}

// What is to be known of an import is at the head of the policy, and on the standard error: a terminal that shows both
// shows it once.
func TestImportSaysItsFindingsOnce(t *testing.T) {
	const finding = "no rules for IPv6"
	h := newHost(t)
	rules := filepath.Join(t.TempDir(), "rules.sh")
	if err := os.WriteFile(rules, []byte("iptables -P INPUT DROP\niptables -P FORWARD DROP\niptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT\niptables -A INPUT -m owner -j ACCEPT\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := h.env()
	var stdout, stderr strings.Builder
	e.stdout, e.stderr = &stdout, &stderr
	code := run(e, []string{"import", rules})
	if code != 1 || strings.Count(stdout.String(), finding) != 1 || strings.Count(stderr.String(), finding) != 1 || strings.Count(stderr.String(), "-m owner cannot be said") != 1 {
		t.Errorf("apart, import exits with %d and prints\n%s\nand\n%s", code, &stdout, &stderr)
	}
	screen, terminal := pseudoTerminal(t)
	e.stdout, e.stderr = terminal, terminal
	printed := make(chan string)
	go func() {
		var text strings.Builder
		buffer := make([]byte, 4096)
		for !strings.Contains(text.String(), "some rules were not translated") {
			n, err := screen.Read(buffer)
			if err != nil {
				break
			}
			text.Write(buffer[:n])
		}
		printed <- text.String()
	}()
	if code := run(e, []string{"import", rules}); code != 1 {
		t.Errorf("on a terminal import exits with %d", code)
	}
	select {
	case text := <-printed:
		if strings.Count(text, finding) != 1 || strings.Count(text, "-m owner cannot be said") != 1 {
			t.Errorf("a terminal shows\n%s", text)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a terminal shows nothing of the end")
	}
}
