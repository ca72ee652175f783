// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy/quote"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// journald is a systemd-journald in a mount namespace of its own, where it has the sockets and the journal of a host.
type journald struct {
	t   *testing.T
	pid int
}

func newJournald(t *testing.T) *journald {
	t.Helper()
	lab.RequireRoot(t)
	program := lab.NeedProgram(t, "/lib/systemd/systemd-journald")
	lab.NeedProgram(t, "journalctl")
	const script = `
		mkdir -p /run/systemd /run/log
		mount -t tmpfs tmpfs /run/systemd
		mount -t tmpfs tmpfs /run/log
		mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
		printf '%s\n' '[Journal]' Storage=volatile ReadKMsg=no Audit=no ForwardToSyslog=no ForwardToWall=no >/run/systemd/journald.conf.d/test.conf
		[ -e /etc/machine-id ] || : >/etc/machine-id
		echo 0123456789abcdef0123456789abcdef >/run/systemd/machine-id
		mount --bind /run/systemd/machine-id /etc/machine-id
		exec "$1"`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "bash", "-euc", script, "journald", program)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	j := &journald{t, cmd.Process.Pid}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	j.waitsFor("socket", func() bool {
		_, err := os.Stat(j.path("socket"))
		return err == nil
	})
	return j
}

// path returns that of one of its sockets, as it is seen from here.
func (j *journald) path(socket string) string {
	return fmt.Sprintf("/proc/%d/root/run/systemd/journal/%s", j.pid, socket)
}

func (j *journald) waitsFor(what string, condition func() bool) {
	j.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			j.t.Fatalf("the journal has no %s, but\n%s", what, j.command("journalctl", "--no-pager").text())
		}
	}
}

type journalCommand struct{ *exec.Cmd }

// text returns what a command prints.
func (c journalCommand) text() string {
	out, _ := c.CombinedOutput()
	return string(out)
}

// command prepares a command that has this journal.
func (j *journald) command(name string, args ...string) journalCommand {
	return journalCommand{exec.Command("nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", j.pid), name}, args...)...)}
}

// entries returns those that match, as journalctl takes it. A field that is no text is an error.
func (j *journald) entries(match ...string) (entries []map[string]string) {
	j.t.Helper()
	out, err := j.command("journalctl", append([]string{"-o", "json", "--no-pager"}, match...)...).Output()
	if err != nil {
		return nil // there is no file yet
	}
	for line := range strings.Lines(string(out)) {
		var e map[string]string
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			j.t.Fatalf("%v: %s", err, line)
		}
		entries = append(entries, e)
	}
	return entries
}

// wants waits for an entry that matches, and fails if it lacks a field.
func (j *journald) wants(fields map[string]string, match ...string) map[string]string {
	j.t.Helper()
	var found []map[string]string
	j.waitsFor(strings.Join(match, " "), func() bool {
		found = j.entries(match...)
		return len(found) > 0
	})
	for name, want := range fields {
		if got := found[0][name]; got != want {
			j.t.Errorf("%q has the %s %q, want %q: %v", match, name, got, want, found[0])
		}
	}
	return found[0]
}

// stream returns a stream of the journal's, as a service has it for its standard error, and what $JOURNAL_STREAM says of it.
func (j *journald) stream() (stream *os.File, variable string) {
	j.t.Helper()
	conn, err := net.Dial("unix", j.path("stdout"))
	if err != nil {
		j.t.Fatal(err)
	}
	defer conn.Close()
	// Who it is, its unit, the priority, whether lines say one, and where else they go (sd_journal_stream_fd(3)).
	if _, err := fmt.Fprintf(conn, "portcullis\n\n%d\n%d\n0\n0\n0\n", 6, 1); err != nil {
		j.t.Fatal(err)
	}
	if stream, err = conn.(*net.UnixConn).File(); err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { stream.Close() })
	var stat unix.Stat_t
	if err := unix.Fstat(int(stream.Fd()), &stat); err != nil {
		j.t.Fatal(err)
	}
	return stream, fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino)
}

// at returns the command line that runs one at the server, with this journal.
func (j *journald) at(l *lab.Lab, args ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", j.pid), "--net=/run/netns/" + l.Server.Name}, args...)
}

// A real journald has what the agent writes: lines with their priorities, packets with fields that stand for themselves
// whatever somebody has called an interface, few of them in a flood, and what happens when the time for it has come.
func TestTheJournalHasItAll(t *testing.T) {
	lab.NeedsVeth(t, "sends a flood by its driver")
	j := newJournald(t)
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [\"e*\"]\nopen: [22/tcp]\nlog: drops\n")
	hostile := "e\x1b[7m=\"P\u202e"
	l.Client.IP(t, "link", "add", "bad0", "type", "veth", "peer", "name", hostile, "netns", l.Server.Name)
	l.Client.IP(t, "link", "set", "bad0", "up")
	l.Server.IP(t, "link", "set", hostile, "up")

	stream, variable := j.stream()
	service := a.run()
	line := j.at(l, append([]string{"sh", "-c", `exec "$@" 2>&3`, "sh"}, service.Args[2:]...)...) // behind nsenter and its flag
	process := exec.Command(line[0], line[1:]...)
	process.Env, process.ExtraFiles = append(service.Env, variable), []*os.File{stream}
	a.starts(process)
	a.waitsFor("READY", func() bool { return a.tells("READY=1") })
	types := func(args ...string) {
		t.Helper()
		line := j.at(l, append([]string{a.program}, args...)...)
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = a.command().Env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("portcullis %q: %v\n%s", args, err, out)
		}
	}
	a.waitsFor("both interfaces", func() bool { return a.filters("eth0") && a.filters(hostile) })

	send(t, l.Client, synTo(macOf(t, l.Server, "eth0"), lab.ClientV4, 40000, 443))
	j.wants(map[string]string{
		"MESSAGE": "closed port on eth0: tcp 192.0.2.2:40000 > 192.0.2.1:443 syn, 54 bytes", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "portcullis", "INTERFACE": "eth0",
		"PROTOCOL": "tcp", "DESTINATION": "192.0.2.1", "SOURCE_PORT": "40000", "DESTINATION_PORT": "443", "LENGTH": "54", "_TRANSPORT": "journal",
	}, "-t", "portcullis", "REASON=closed port", "SOURCE=192.0.2.2")

	stranger := netip.MustParseAddr("203.0.113.5")
	if err := l.Client.Wire(t, "bad0").Send(synTo(macOf(t, l.Server, hostile), stranger, 1, 23)); err != nil {
		t.Fatal(err)
	}
	j.wants(map[string]string{"INTERFACE": quote.Text(hostile), "DESTINATION_PORT": "23"}, "SOURCE="+stranger.String())

	// Who floods the host does not flood its journal.
	const frames = 50_000
	newFlood(t, l, 8080).send(t, frames)
	var told int
	j.waitsFor("summary of a flood", func() bool {
		for _, e := range j.entries("-t", "portcullis", "REASON=closed port") {
			n, _ := strconv.Atoi(e["REASON_PACKETS"])
			told = max(told, n)
		}
		return told > 0
	})
	if n := len(j.entries("-t", "portcullis")); told < frames/2 || n > 150 {
		t.Errorf("of %d packets %d are told of, in %d entries", frames, told, n)
	}

	// Whatever is logged has the priority that it deserves, and says it in no other way.
	a.writes("open: [nonsense]\n")
	j.wants(map[string]string{"SYSLOG_IDENTIFIER": "portcullis", "_TRANSPORT": "stdout"}, "-t", "portcullis", "PRIORITY=3")
	a.writes("interfaces: [\"e*\"]\nopen: [22/tcp]\nlog: drops\n")

	types("open", "8443/tcp", "--for", "1s")
	j.wants(map[string]string{"MESSAGE": "closed 8443/tcp: the time for which it was opened is up", "PRIORITY": "5", "SYSLOG_IDENTIFIER": "portcullis",
		"FORWARD": "false", "PIN_PATH": l.PinPath}, "EVENT=rule closed", "RULE=8443/tcp")
	candidate := filepath.Join(a.dir, "candidate.yaml")
	if err := os.WriteFile(candidate, []byte("open: [22/tcp, 9443/tcp]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	types("try", candidate, "--timeout", "1s")
	j.wants(map[string]string{"PRIORITY": "5", "FILE": candidate,
		"MESSAGE": "reverted " + candidate + ": nobody has confirmed it in time; what was in force before is in force again"}, "EVENT=trial reverted")

	for _, e := range j.entries("-t", "portcullis") {
		for name, value := range e {
			if strings.ContainsAny(value, "\x1b\n\r\u202e") || strings.HasPrefix(value, "<") {
				t.Errorf("an entry has the %s %q", name, value)
			}
		}
	}
}
