// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var sideRounds = flag.Int("side-by-side", 0, "compare what shows dropped packets, in so many `rounds`: see docs/monitor.md")

// bursts is how many there are of a flood.
const bursts = 30

// looker is a program that shows packets which are dropped.
type looker struct {
	name    string
	args    []string
	begins  string // what it says on standard error once it looks
	mode    loader.Mode
	answers bool                                     // it shows no packets of the flood, but answers a question
	nft     bool                                     // nft drops the packets, and no Portcullis
	traces  bool                                     // under a rule of nft that marks them
	counted func(out, said string) (shown, lost int) // lost: -1 where it does not say
}

// sideBySide are the lookers, at packets that each of the three drops.
func sideBySide(program string) []looker {
	traced := func(out, _ string) (int, int) { return strings.Count(out, "policy drop"), -1 }
	monitored := func(out, said string) (int, int) {
		lost := 0
		for _, m := range regexp.MustCompile(`closed port: ([0-9,]+) not (?:shown|written)`).FindAllStringSubmatch(out+said, -1) {
			n, _ := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
			lost += n
		}
		if written := number(said, `portcullis: (\d+) packets?\n`); written > 0 {
			return written, lost
		}
		return strings.Count(out, " closed port  tcp "), lost
	}
	tcpdumped := func(_, said string) (int, int) {
		return number(said, `(\d+) packets? captured`), number(said, `(\d+) packets? dropped by kernel`)
	}
	xdpdumped := func(_, said string) (int, int) {
		return number(said, `(\d+) packets? captured`), number(said, `(\d+) packets? dropped`)
	}
	const begun = "packets are shown"
	tcpdump := []string{"tcpdump", "-Z", "root", "-n", "-i", "eth0", "-w", "/dev/null"}
	trace := []string{"stdbuf", "-oL", "nft", "monitor", "trace"}
	return []looker{
		{name: "`portcullis monitor`", mode: loader.ModeNative, args: []string{program, "monitor"}, begins: begun, counted: monitored},
		{name: "`portcullis monitor --from 203.0.113.9`", mode: loader.ModeNative, args: []string{program, "monitor", "--from", "203.0.113.9"}, begins: begun, counted: monitored},
		{name: "`portcullis monitor --write - --rate 10000000`", mode: loader.ModeNative, args: []string{"sh", "-c", "exec " + program + " monitor --write - --rate 10000000 >/dev/null"}, begins: begun, counted: monitored},
		{name: "`portcullis explain`, again and again", mode: loader.ModeNative, args: []string{"sh", "-c", "echo begun >&2; while :; do " + program + " explain 192.0.2.2 23/tcp; done"}, begins: "begun", answers: true,
			counted: func(out, _ string) (int, int) { return strings.Count(out, "drop: closed port"), -1 }},
		{name: "`tcpdump -w`", mode: loader.ModeNative, args: tcpdump, begins: "listening on", counted: tcpdumped},
		{name: "`xdpdump --rx-capture exit -w`", mode: loader.ModeNative, args: []string{"xdpdump", "-i", "eth0", "--rx-capture", "exit", "-w", "/dev/null"}, begins: "listening on", counted: xdpdumped},
		{name: "`nft monitor trace`", mode: loader.ModeNative, args: trace, traces: true, counted: traced},
		{name: "`portcullis monitor`", mode: loader.ModeTC, args: []string{program, "monitor"}, begins: begun, counted: monitored},
		{name: "`portcullis monitor --write - --rate 10000000`", mode: loader.ModeTC, args: []string{"sh", "-c", "exec " + program + " monitor --write - --rate 10000000 >/dev/null"}, begins: begun, counted: monitored},
		{name: "`tcpdump -w`", mode: loader.ModeTC, args: tcpdump, begins: "listening on", counted: tcpdumped},
		{name: "`tcpdump -w`", nft: true, args: tcpdump, begins: "listening on", counted: tcpdumped},
		{name: "`xdpdump --load-xdp-program -w`", nft: true, args: []string{"xdpdump", "-i", "eth0", "--load-xdp-program", "-w", "/dev/null"}, begins: "listening on", counted: xdpdumped},
		{name: "`nft monitor trace`", nft: true, traces: true, args: trace, counted: traced},
	}
}

// number returns the number that a pattern finds in a text, or 0.
func number(text, pattern string) int {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// TestSideBySide measures what it costs to look at a flood of packets that are dropped: in each round the flood runs without the
// looker and with it, in turn. It prints a table for docs/monitor.md: the median of the rounds' ratios, and the least and the most. Which figures are right nobody can say beforehand, so it fails
// only where nothing is measured, or where the monitor does not account for each packet.
func TestSideBySide(t *testing.T) {
	if *sideRounds == 0 {
		t.Skip("measures for minutes: -side-by-side 9")
	}
	program := lab.Program(t)
	frames := floodFrames(t) / bursts * bursts
	rows := []string{"| dropped by | looked at by | rate with it | CPU time a million | shown | lost |", "|---|---|---|---|---|---|"}
	for _, k := range sideBySide(program) {
		by := "Portcullis, " + string(k.mode)
		if k.nft {
			by = "nft, input"
		}
		if k.args[0] != program && k.args[0] != "sh" {
			if _, err := exec.LookPath(k.args[0]); err != nil {
				rows = append(rows, fmt.Sprintf("| %s | %s | not installed | | | |", by, k.name))
				continue
			}
		}
		t.Run(by+", "+strings.Trim(k.name, "`"), func(t *testing.T) {
			l := lab.New(t)
			f := newFlood(t, l, 23)
			if k.nft {
				l.Server.Run(t, "nft", "add table inet side; add chain inet side in { type filter hook input priority 0; policy drop; }; add rule inet side in counter")
			} else {
				up(t, l, k.mode, policyOf(t, "80/tcp"))
			}
			f.send(t, frames)
			if k.nft && number(l.Server.Run(t, "nft", "list", "chain", "inet", "side", "in"), `packets (\d+)`) < frames*9/10 {
				t.Fatal("the flood does not reach nft")
			}
			burst := func() time.Duration { // the median of some, so that what else the machine does counts less
				var took []time.Duration
				for range bursts {
					took = append(took, f.send(t, frames/bursts))
				}
				slices.Sort(took)
				return took[bursts/2]
			}
			var ratios []float64
			var cpu time.Duration
			shown, lost := 0, 0
			sample := ""
			for range *sideRounds {
				without := burst()
				if k.traces {
					l.Server.Run(t, "nft", "add table inet trace; add chain inet trace pre { type filter hook prerouting priority -400; }; add rule inet trace pre tcp dport 23 meta nftrace set 1")
				}
				end, failed := k.look(t, l)
				if failed != "" {
					rows = append(rows, fmt.Sprintf("| %s | %s | does not run here: %s | | | |", by, k.name, failed))
					return
				}
				with := burst()
				out, said, used := end()
				if k.traces {
					l.Server.Run(t, "nft", "delete table inet trace")
				}
				ratios = append(ratios, float64(without)/float64(with))
				s, n := k.counted(out, said)
				if cpu, shown = cpu+used, shown+s; n >= 0 {
					lost += n
				} else {
					lost = -1
				}
				if strings.Contains(k.name, "portcullis monitor") && !strings.Contains(k.name, "--from") && s+n < frames {
					t.Errorf("%d shown and %d not shown are not the %d that were dropped", s, n, frames)
				}
				if sample == "" {
					sample = out[:min(len(out), 600)]
				}
			}
			slices.Sort(ratios)
			all := float64(frames * *sideRounds)
			text := "does not say"
			if lost >= 0 {
				text = fmt.Sprintf("%.1f %%", 100*float64(lost)/all)
			}
			took, what := fmt.Sprintf("%.2f s", cpu.Seconds()/all*1e6), fmt.Sprintf("%.1f %%", 100*float64(shown)/all)
			if k.answers {
				took, what, text = fmt.Sprintf("%.2f s an answer", cpu.Seconds()/float64(max(shown, 1))), fmt.Sprintf("%d answers", shown), ""
			}
			row := fmt.Sprintf("| %s | %s | ×%.2f (%.2f to %.2f) | %s | %s | %s |", by, k.name, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1], took, what, text)
			rows = append(rows, row)
			t.Logf("%s\nit shows %q", row, sample)
		})
	}
	t.Logf("%d frames, %d rounds, in each without and with:\n%s", frames, *sideRounds, strings.Join(rows, "\n"))
}

// look starts a looker, and returns what ends it: what it has printed, and the CPU time that it took; or what it says where it does
// not run.
func (k *looker) look(t *testing.T, l *lab.Lab) (end func() (out, said string, used time.Duration), failed string) {
	t.Helper()
	dir := t.TempDir()
	files := make([]*os.File, 2)
	for i, name := range []string{"out", "said"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	line := l.Server.Command(k.args[0], k.args[1:]...)
	cmd := exec.CommandContext(ctx, line.Path, line.Args[1:]...)
	cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+l.PinPath)
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a signal is for all of a pipe
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for limit := time.Now().Add(patience); k.begins != "" && !strings.Contains(read("said"), k.begins); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
		select {
		case err := <-ended:
			cancel()
			return nil, strings.ReplaceAll(strings.TrimSpace(read("said")), "\n", " ") + ", " + err.Error()
		default:
		}
	}
	time.Sleep(500 * time.Millisecond)
	return func() (string, string, time.Duration) {
		defer cancel()
		time.Sleep(1500 * time.Millisecond) // for what it still has to read
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGINT)
		err := <-ended
		exited := new(exec.ExitError)
		if err != nil && !errors.As(err, &exited) {
			t.Fatalf("%s: %v: %s", k.name, err, read("said"))
		}
		return string(bytes.ToValidUTF8([]byte(read("out")), nil)), read("said"), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}, ""
}
