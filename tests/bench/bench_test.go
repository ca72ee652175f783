// SPDX-License-Identifier: Apache-2.0

// Package bench tests "portcullis bench" as a user runs it: that everything is measured and counted, that nothing is
// left behind, and that real interfaces come back. It says nothing of how fast anything is.
package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/cmd/portcullis/bench"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// patience is for a machine that has other work to do.
const patience = 10 * time.Minute

var program string

func TestMain(m *testing.M) {
	if program = os.Getenv("PORTCULLIS"); program != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "portcullis-bench-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "portcullis")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/portcullis-firewall/portcullis/cmd/portcullis").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// run is the benchmark, running on a host.
type run struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
	temp           string
	mounts, pins   string
}

func start(t *testing.T, h *lab.Host, args ...string) *run {
	t.Helper()
	r := &run{Cmd: h.Command(program, append([]string{"bench"}, args...)...), temp: t.TempDir(), mounts: mounts(t), pins: pins(t)}
	r.Env = append(os.Environ(), "TMPDIR="+r.temp, "SSH_CONNECTION=")
	r.Stdout, r.Stderr = &r.stdout, &r.stderr
	r.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // by which its children are known
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = r.Process.Kill() })
	t.Cleanup(func() { timer.Stop() })
	return r
}

// ends waits for the end, wants the exit code, and looks for what is left.
func (r *run) ends(t *testing.T, code int) {
	t.Helper()
	_ = r.Wait()
	if got := r.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d\n%s%s", got, code, r.stderr.String(), r.stdout.String())
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		left := r.children(t)
		if len(left) == 0 {
			break
		}
		if time.Since(start) > 10*time.Second { // a process that was killed needs a moment
			t.Errorf("processes are left: %q", left)
			break
		}
	}
	if left, _ := os.ReadDir(r.temp); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if now := mounts(t); now != r.mounts {
		t.Errorf("mounts were\n%s\nand are\n%s", r.mounts, now)
	}
	if now := pins(t); now != r.pins {
		t.Errorf("pins were %s and are %s", r.pins, now)
	}
}

// children lists the processes of the run's session. What they keep open keeps a network namespace alive, and nothing
// else does: the benchmark gives none a name.
func (r *run) children(t *testing.T) (out []string) {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 3 && fields[3] == fmt.Sprint(r.Process.Pid) && fields[0] != "Z" {
			out = append(out, string(text))
		}
	}
	return out
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	// Other tests mount the names of their namespaces.
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(l string) bool { return strings.Contains(l, "/run/netns") })
	return strings.Join(lines, "\n")
}

// pins lists what could be ours: labs of tests have names that begin with pc.
func pins(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/sys/fs/bpf")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "pc") {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, " ")
}

func report(t *testing.T, r *run) *bench.Report {
	t.Helper()
	var out bench.Report
	if err := json.Unmarshal(r.stdout.Bytes(), &out); err != nil {
		t.Fatalf("not JSON: %v\n%s%s", err, r.stdout.String(), r.stderr.String())
	}
	return &out
}

// mustBeCounted fails for each row that has no figure, or one that no counter stands for.
func mustBeCounted(t *testing.T, r *bench.Report) {
	t.Helper()
	for _, w := range r.Works {
		for _, row := range w.Rows {
			if row.Invalid != "" || row.Figure == nil || row.Frames > 0 && row.Checked == "" {
				t.Errorf("%s: %s: no figure: %s %+v", w.Title, row.Title, row.Invalid, row)
			}
		}
	}
}

func TestQuickRunMeasuresEverything(t *testing.T) {
	l := lab.New(t)
	dir := filepath.Join(t.TempDir(), "out")
	// Curves and 1M flows take a minute, and are the same machinery.
	works := slices.DeleteFunc(bench.Works(), func(key string) bool { return strings.HasSuffix(key, "1m") || strings.HasSuffix(key, "000") })
	r := start(t, l.Server, "--quick", "--report", dir, "-o", "json", "--generator", "live", "--work", strings.Join(works, ","))
	r.ends(t, 0)
	got := report(t, r)
	mustBeCounted(t, got)
	for _, key := range works {
		// Each of these is more than one.
		key += map[string]string{"stream": "-1", "open-port": "-command", "ban-command": "-0", "ban-lines": "-1000", "ban-last": "-p50"}[key]
		w := got.Work(key)
		if w == nil {
			t.Errorf("%s was not measured", key)
			continue
		}
		if w.Unit == bench.Nanoseconds && w.Row("portcullis") == nil {
			t.Errorf("%s was not measured with Portcullis", key)
		}
	}
	for _, subject := range bench.Subjects() {
		if got.Work("closed").Row(subject) == nil && !slices.ContainsFunc(got.LeftOut, func(l bench.LeftOut) bool {
			return strings.HasPrefix(l.What, subject)
		}) {
			t.Errorf("%s was neither measured nor left out for a reason", subject)
		}
	}
	if n := got.Work("syn-flood-entries").Row("portcullis").Figure.High; n != 0 {
		t.Errorf("a SYN flood on an open port made %.0f flows", n)
	}
	for _, name := range []string{bench.ReportPage, bench.ReportText, bench.ReportData} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// measuring waits until the run is inside its namespaces.
func (r *run) measuring(t *testing.T) {
	t.Helper()
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", r.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < patience; time.Sleep(10 * time.Millisecond) {
		rooms := make(map[string]bool)
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", r.Process.Pid))
		for _, task := range tasks {
			if ns, err := os.Readlink(task); err == nil && ns != home {
				rooms[ns] = true
			}
		}
		if len(rooms) >= 2 {
			return
		}
	}
	t.Fatalf("it does not begin to measure\n%s", r.stderr.String())
}

func TestInterruptLeavesNothing(t *testing.T) {
	l := lab.New(t)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for _, work := range []string{"closed", "stream"} {
			r := start(t, l.Server, "--work", work, "--rounds", "100000")
			r.measuring(t)
			time.Sleep(500 * time.Millisecond) // somewhere in the middle
			if err := r.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			r.ends(t, 1)
			if text := r.stderr.String(); text != "portcullis: interrupted\n" {
				t.Errorf("%s, %s: says %q", work, signal, text)
			}
		}
	}
}

// cards are two interfaces that are joined by a cable, one of them in use.
func cards(t *testing.T, h *lab.Host) {
	t.Helper()
	h.IP(t, "link", "add", "card0", "type", "veth", "peer", "name", "card1")
	h.IP(t, "link", "set", "card0", "up")
	h.IP(t, "link", "set", "card1", "up")
	h.IP(t, "addr", "add", "198.51.100.1/24", "dev", "card1")
	h.IP(t, "-6", "addr", "add", "2001:db8:5::1/64", "dev", "card1", "nodad")
	h.IP(t, "route", "add", "203.0.113.0/24", "via", "198.51.100.9")
}

// state is what the interfaces look like. The kernel gives link-local addresses by itself, and in its own time.
func state(t *testing.T, h *lab.Host) string {
	t.Helper()
	var b strings.Builder
	for _, card := range []string{"card0", "card1"} {
		for _, args := range [][]string{{"-br", "addr", "show", "dev", card, "scope", "global"}, {"route", "show", "dev", card}} {
			b.WriteString(h.IP(t, args...))
		}
		if strings.Contains(h.IP(t, "link", "show", card), "xdp") {
			fmt.Fprintf(&b, "%s has an XDP program\n", card)
		}
	}
	return b.String()
}

func TestRealInterfacesComeBack(t *testing.T) {
	l := lab.New(t)
	cards(t, l.Server)
	before := state(t, l.Server)
	r := start(t, l.Server, "--quick", "--work", "closed,established-1", "--from", "card0", "--to", "card1", "--generator", "live", "-o", "json")
	r.ends(t, 0)
	got := report(t, r)
	mustBeCounted(t, got)
	if got.Method.Interfaces != "card0 to card1" || len(got.Work("established-1").Row("portcullis").Rounds) != got.Method.Rounds {
		t.Errorf("measured %+v, %+v", got.Method, got.Work("established-1"))
	}
	if now := state(t, l.Server); now != before {
		t.Errorf("the interfaces were\n%sand are\n%s", before, now)
	}

	r = start(t, l.Server, "--work", "closed", "--from", "card0", "--to", "card1", "--rounds", "100000")
	r.measuring(t)
	time.Sleep(500 * time.Millisecond)
	if err := r.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r.ends(t, 1)
	if now := state(t, l.Server); now != before {
		t.Errorf("after an interrupt the interfaces were\n%sand are\n%s", before, now)
	}
}

func TestInterfacesThatTheHostNeedsAreRefused(t *testing.T) {
	l := lab.New(t)
	cards(t, l.Server)
	l.Server.IP(t, "route", "add", "default", "via", lab.ClientV4.String())
	for _, c := range []struct {
		session, from, to, says string
		code                    int
	}{
		{"", "card0", "eth0", "eth0 carries the default route", 1},
		{"203.0.113.5 50000 198.51.100.1 22", "card0", "card1", "card1 carries the ssh session", 1},
		{"", "card0", "card0", "two interfaces are needed", 1},
		{"", "card0", "lo", "lo: not an Ethernet interface", 1},
		{"", "card0", "none", "none: ", 1},
		{"", "card0", "", "--from and --to go together", 2},
	} {
		before := state(t, l.Server)
		cmd := l.Server.Command(program, "bench", "--quick", "--from", c.from, "--to", c.to)
		cmd.Env = append(os.Environ(), "SSH_CONNECTION="+c.session)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%s to %s: exit code %d: %s", c.from, c.to, code, out)
		}
		if now := state(t, l.Server); now != before {
			t.Errorf("%s to %s: the interfaces were\n%sand are\n%s", c.from, c.to, before, now)
		}
	}
}
