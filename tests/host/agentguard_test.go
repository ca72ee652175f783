// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A stranger who locks what he can open, which the directory of the policy file is, holds nobody up: neither commands nor
// the agent, which has to filter an interface that appears.
func TestStrangersHoldNobodyUp(t *testing.T) {
	lab.NeedsVeth(t, "deletes an interface")
	l := lab.New(t)
	inside := l.AddInside(t)
	a := newAgent(t, l, "interfaces: [eth0, eth1]\nopen: [ssh]\n")
	for _, dir := range []string{a.dir, filepath.Dir(a.dir)} { // the latter is made by the test, for root alone
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a.runs()
	for _, path := range []string{a.dir, a.file(), "/run/portcullis", "/run/portcullis/deadlines", "/run/portcullis/locks", l.State(), l.PinPath} {
		stranger := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "flock", path, "sleep", "600")
		if err := stranger.Start(); err != nil {
			t.Fatal(err)
		}
		defer stranger.Process.Kill()
	}
	time.Sleep(500 * time.Millisecond) // by then they have what they get
	start := time.Now()
	a.types("open", "http", "--lock-timeout", "20s")
	a.types("apply", "--lock-timeout", "20s")
	a.writes("interfaces: [eth0, eth1]\nopen: [ssh, ftp]\n")
	a.opens("ftp")
	l.Server.IP(t, "link", "del", "eth1")
	l.Server.IP(t, "link", "add", "name", "eth1", "type", "veth", "peer", "name", "eth0", "netns", inside.Name)
	a.waitsFor("eth1", func() bool { return a.filters("eth1") })
	a.types("down", "--lock-timeout", "20s")
	if took := time.Since(start); took > patience {
		t.Errorf("it took %v", took)
	}
}

// An editor that truncates the file and writes it slowly leaves it as half a policy again and again. None is applied.
func TestAgentWaitsForTheEndOfTheFile(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	const head, tail = "interfaces: [eth0]\n", "open:\n- 7/tcp\n- ssh\n- 9/tcp\n"
	a := newAgent(t, l, head+tail)
	a.runs()
	slow, err := os.OpenFile(a.file(), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"", head, "open:\n", "- 9/tcp\n", "- http\n", "- 7/tcp\n"} {
		if _, err := slow.WriteString(part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // longer than a file has to be left alone
		if !a.open("7/tcp") || !a.open("ssh") || a.open("http") {
			t.Fatalf("half of the file is applied: %+v", status(t, l).Rules)
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "while the file is written")
	}
	if a.says("not in force") {
		t.Error("half of the file is complained of")
	}
	if err := slow.Close(); err != nil {
		t.Fatal(err)
	}
	a.opens("http")
	a.closes("ssh")

	// A link that takes the place of the file is complete.
	target := filepath.Join(a.dir, "other.yaml")
	if err := os.WriteFile(target, []byte(head+"open: [7/tcp, ftp]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.file()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, a.file()); err != nil {
		t.Fatal(err)
	}
	a.opens("ftp")
	a.closes("http")
	// And what it leads to is followed.
	time.Sleep(500 * time.Millisecond)
	if err := os.WriteFile(target, []byte(head+"open: [7/tcp]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.closes("ftp")
}

// A file that takes the last way in away, or that is empty, is refused and told of.
func TestAgentGuardsTheWayIn(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 22)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [ssh, http]\n")
	a.runs()
	for text, complaint := range map[string]string{
		"":                                   "nothing in the file",
		"interfaces: [eth0]\nopen: [http]\n": "an sshd listens on port 22, which no rule opens",
	} {
		a.writes(text)
		a.waitsFor("complaint", func() bool { return a.says(complaint) && strings.Contains(a.logged(), complaint) })
		a.signals(unix.SIGHUP)
		a.waitsFor("second complaint", func() bool { return strings.Count(a.logged(), complaint) == 2 })
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 22), "the way in")
		a.writes("interfaces: [eth0]\nopen: [ssh, http]\n")
		a.waitsFor("word of the good file", func() bool { return strings.Contains(a.logged(), "is good again") && !a.says("not in force") })
	}
	// A person may do it.
	a.writes("interfaces: [eth0]\nopen: [http]\n")
	a.types("apply", "--force")
	a.closes("ssh")
}

// What was decided at runtime stays, whatever a later command does to the file, and when the agent starts anew.
func TestAgentLeavesWhatWasDecidedAtRuntime(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [ssh, http]\n")
	a.runs()
	candidate := filepath.Join(a.dir, "candidate.yaml")
	if err := os.WriteFile(candidate, []byte("open: [ssh, imaps]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stays := func(open, closed string) {
		t.Helper()
		time.Sleep(time.Second) // longer than a file has to be left alone
		if !a.open(open) || a.open(closed) {
			t.Fatalf("rules are %+v, want %s and not %s", status(t, l).Rules, open, closed)
		}
	}
	a.types("close", "--runtime", "http")
	a.types("open", "ftp")
	stays("ftp", "http")
	a.types("apply", candidate)
	stays("imaps", "http")
	a.types("open", "smtp")
	stays("smtp", "ftp")
	if err := a.ends(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a.runs()
	stays("imaps", "http")

	// Until somebody changes the file.
	a.writes("interfaces: [eth0]\nopen: [ssh, http, pop3]\n")
	a.opens("pop3")
	stays("http", "imaps")
}

// With a full /run the agent keeps the filter, and commands change it.
func TestAFullRunDirectory(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [ssh]\n")
	full := func(cmd *exec.Cmd) *exec.Cmd {
		// One inode is that of the directory itself.
		cmd.Args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
			`mount -t tmpfs -o nr_inodes=1,mode=0755 full /run/portcullis && exec "$@"`, "sh"}, cmd.Args...)
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = path
		return cmd
	}
	a.starts(full(a.run()))
	a.waitsFor("READY", func() bool { return a.tells("READY=1") })
	if log := a.logged(); !strings.Contains(log, "nothing keeps a second agent away") {
		t.Errorf("the log is\n%s", log)
	}
	a.writes("interfaces: [eth0]\nopen: [ssh, http]\n")
	a.opens("http")
	for _, args := range [][]string{{"open", "ftp"}, {"close", "http"}, {"apply"}, {"status"}, {"down"}} {
		if out, err := full(a.command(args...)).CombinedOutput(); err != nil {
			t.Errorf("portcullis %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	mustBeClean(t, l)
}
