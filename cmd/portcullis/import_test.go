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

// runImport runs import, which prints findings without the name of the program.
func runImport(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	e := newHost(t).env()
	var out, complaints strings.Builder
	e.stdout, e.stderr = &out, &complaints
	code = run(e, append([]string{"import"}, args...))
	return code, out.String(), complaints.String()
}

// Each case is a command line of import, its exit code, and what is said and written then.
func TestWhatStaysAndWhatIsLeftOut(t *testing.T) {
	const rules = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n" +
		"-A INPUT -m set --match-set bad src -j DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"rules": rules, "sets": "create bad hash:net family inet\nadd bad 203.0.113.0/24\n"} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   []string
		code   int
		opens  string
		stderr string
	}{
		{[]string{path("rules")}, 1, "- 22/tcp\n", "1 rule has to stay in netfilter"},
		{[]string{"--partial", path("rules")}, 0, "- 22/tcp\n", "the policy opens 22/tcp to all; 1 rule stays in netfilter"},
		{[]string{"--strict", path("rules")}, 1, "open: []\n", "some rules were not translated: 1 finding above"},
		{[]string{path("rules"), path("sets")}, 0, "- 22/tcp except 203.0.113.0/24\n", ""},
		{[]string{"-4", path("rules")}, 1, "- 22/tcp\n", "no rules for IPv6"},
		{[]string{"-4", path("rules"), "-6", path("rules")}, 2, "", "named for both families"},
		{[]string{"--live", path("rules")}, 2, "", "--live reads the rules in force, and no files"},
		{[]string{"--packets", "0", path("rules")}, 2, "", "write a number from 1"},
	} {
		if code, stdout, stderr := runImport(t, c.args...); code != c.code || !strings.Contains(stdout, c.opens) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%q exits with %d, prints\n%s\nand says\n%s", c.args, code, stdout, stderr)
		}
	}
	if code, _, _ := runImport(t, "--write", path("policy.yaml"), "--report", path("report"), path("rules")); code != 1 {
		t.Errorf("it exits with %d", code)
	}
	if _, err := os.Stat(path("policy.yaml")); err == nil {
		t.Error("a policy that relies on rules is written without --partial")
	}
	report, err := os.ReadFile(path("report"))
	if err != nil || !strings.Contains(string(report), ":INPUT ACCEPT [0:0]\n") || !strings.Contains(string(report), "-A INPUT -m set --match-set bad src -j DROP\n") ||
		!strings.Contains(string(report), "rules:6: ") {
		t.Errorf("the report is\n%s\n%v", report, err)
	}
	if code, _, _ := runImport(t, "--partial", "--write", path("policy.yaml"), path("rules")); code != 0 {
		t.Errorf("with --partial it exits with %d", code)
	}
	if text, err := os.ReadFile(path("policy.yaml")); err != nil || !strings.HasPrefix(string(text), "# Translated") || strings.Index(string(text), "open:") > strings.Index(string(text), "Stays in netfilter") {
		t.Errorf("the policy is\n%s\n%v", text, err)
	}
}
