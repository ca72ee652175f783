// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var (
	compareBans = flag.Bool("bans", false, "compare how long bans take with ipset and nft")
	singly      = flag.Int("singly", 200, "bans that are made by a command each")
)

// banner is a way to ban: by a command for each address, or by one with all of them on its standard input.
type banner struct {
	name  string
	setUp func(run func(args ...string))
	one   func(address string) []string
	many  []string
	input func(addresses []string) string
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// TestBansBesideOthers prints how long whole commands take, of each way in turn, in a network namespace of its own.
func TestBansBesideOthers(t *testing.T) {
	if !*compareBans {
		t.Skip("takes minutes: go test ./tests/bench -run TestBansBesideOthers -bans -v")
	}
	lab.RequireRoot(t)
	program, l := lab.Program(t), lab.New(t)
	if err := os.MkdirAll(l.State(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.State(), "state-directory"), []byte(t.TempDir()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := func(format string) func([]string) string {
		return func(addresses []string) string {
			var b strings.Builder
			for _, a := range addresses {
				fmt.Fprintf(&b, format, a)
			}
			return b.String()
		}
	}
	banners := []banner{
		{"portcullis", func(run func(...string)) { run(program, "unban", "--all") },
			func(a string) []string { return []string{program, "ban", a, "--for", "1h"} }, []string{program, "ban", "-"}, lines("%s 1h\n")},
		{"ipset", func(run func(...string)) {
			run("sh", "-c", "ipset destroy bans 2>/dev/null; ipset create bans hash:ip maxelem 2000000 timeout 0")
		}, func(a string) []string { return []string{"ipset", "add", "bans", a, "timeout", "3600"} },
			[]string{"ipset", "restore"}, lines("add bans %s timeout 3600\n")},
		{"nft", func(run func(...string)) {
			run("sh", "-c", "nft delete table ip bans 2>/dev/null; nft 'add table ip bans; add set ip bans s { type ipv4_addr; flags timeout; }'")
		}, func(a string) []string { return []string{"nft", "add element ip bans s { " + a + " timeout 1h }"} },
			[]string{"nft", "-f", "-"}, func(addresses []string) string {
				return "add element ip bans s { " + strings.Join(addresses, " timeout 1h, ") + " timeout 1h }\n"
			}},
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte("interfaces: [eth0]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var cpu time.Duration // of the last command
	run := func(input string, args ...string) time.Duration {
		t.Helper()
		cmd := l.Server.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+l.PinPath)
		cmd.Stdin = strings.NewReader(input)
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%.80q: %v\n%.500s", args, err, out)
		}
		cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return time.Since(start)
	}
	run("", program, "up", "--mode", "tc", "--force", "--config", file)
	for _, b := range banners {
		if _, err := exec.LookPath(filepath.Base(b.many[0])); err != nil && b.many[0] != program {
			t.Logf("%s: there is none", b.name)
			continue
		}
		for _, n := range []int{1, 1000, 20_000, 1_000_000} {
			addresses := make([]string, n)
			for i := range addresses {
				x := uint32(i)*2654435761%(1<<24) | 0x0b000000 // some of 11.0.0.0/8, each once
				addresses[i] = fmt.Sprintf("%d.%d.%d.%d", x>>24, x>>16&255, x>>8&255, x&255)
			}
			b.setUp(func(args ...string) { run("", args...) })
			whole := run(b.input(addresses), b.many...)
			t.Logf("%-10s %8d in bulk: %8.3f s, %.3f s of CPU time", b.name, n, whole.Seconds(), cpu.Seconds())
		}
		b.setUp(func(args ...string) { run("", args...) })
		var used time.Duration
		each := make([]time.Duration, *singly)
		for i := range each {
			each[i] = run("", b.one(fmt.Sprintf("11.7.%d.%d", i>>8, i&255))...)
			used += cpu
		}
		slices.Sort(each)
		t.Logf("%-10s %8d singly: p50 %.2f ms, p99 %.2f ms, %.2f ms of CPU time", b.name, *singly, ms(each[len(each)/2]), ms(each[len(each)*99/100]), ms(used)/float64(len(each)))
	}
}
