// SPDX-License-Identifier: Apache-2.0

// Package importscripts draws shell scripts, lets a shell run them with a
// model of iptables, and compares what has come of it with what import makes of
// their text.
package importscripts

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/tests/importscripts/fake"
)

var (
	scripts = flag.Int("scripts", 150, "how many scripts are drawn")
	first   = flag.Uint64("seed", 1, "the seed of the first script")
	workers = flag.Int("workers", 2, "how many run at a time")
	show    = flag.Bool("show", false, "print the scripts")
	goOn    = flag.Bool("go-on", false, "list all seeds that fail, in short")
)

// names are what the model is called.
var names = []string{"iptables", "ip6tables", "iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save", "iptables-legacy", "iptables-nft",
	"ip6tables-legacy", "ip6tables-nft"}

// buildModel builds the program that stands for iptables, under all its names.
func buildModel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "model")
	if out, err := exec.Command("go", "build", "-o", program, "./iptables").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range names {
		if err := os.Symlink("model", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tally counts what has come of the scripts.
type tally struct {
	sync.Mutex
	scripts, exact, listed, noRules, let, opened int
	plain, plainExact                            int
	failed                                       []string
}

// TestImportOfScriptsIsNeverWider draws scripts and runs them.
func TestImportOfScriptsIsNeverWider(t *testing.T) {
	for _, name := range []string{"bash", "dash"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	bin := buildModel(t)
	var sum tally
	seeds := make(chan uint64)
	var group sync.WaitGroup
	for range *workers {
		dir := t.TempDir()
		group.Go(func() {
			// Whatever a script gets at, it is not the network of this machine.
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil && os.Geteuid() == 0 {
				t.Error(err)
			}
			for seed := range seeds {
				if why := compare(seed, bin, dir, &sum); why != "" {
					sum.Lock()
					sum.failed = append(sum.failed, why)
					sum.Unlock()
				}
			}
		})
	}
	for i := range uint64(*scripts) {
		seeds <- *first + i
		sum.Lock()
		stop := len(sum.failed) > 0 && !*goOn
		sum.Unlock()
		if stop {
			break
		}
	}
	close(seeds)
	group.Wait()
	for _, why := range sum.failed {
		if *goOn {
			why, _, _ = strings.Cut(why, "\n")
		}
		t.Error(why)
	}
	t.Logf("%d scripts: %d exact, %d narrower and listed, %d without rules; of %d ordinary ones %d exact; %d packets let in, %d by the policies",
		sum.scripts, sum.exact, sum.listed, sum.noRules, sum.plain, sum.plainExact, sum.let, sum.opened)
	if sum.plainExact < sum.plain*3/4 {
		t.Errorf("of %d ordinary scripts only %d are imported exactly", sum.plain, sum.plainExact)
	}
}

// run lets a shell run a script, and returns the rules that it leaves.
func run(s drawn, bin, dir string) (left []*fake.Rules, output string, err error) {
	rules := filepath.Join(dir, "rules")
	text := strings.NewReplacer("/sbin/iptables", bin+"/iptables").Replace(s.text)
	output, err = execute(s, text, dir, []string{"PATH=" + bin + ":/usr/bin:/bin", "FAKE_RULES=" + rules})
	if err != nil {
		return nil, "", err
	}
	for _, name := range []string{"nft4", "nft6", "legacy4", "legacy6"} {
		text, err := os.ReadFile(filepath.Join(rules, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, "", err
		}
		r, err := fake.Parse(text, strings.HasSuffix(name, "6"))
		if err != nil {
			return nil, "", err
		}
		left = append(left, r)
	}
	return left, output, nil
}

// execute lets a shell run the text of a script, in a directory of its own.
func execute(s drawn, text, dir string, env []string) (output string, err error) {
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "rules"), 0o700); err != nil {
		return "", err
	}
	config := s.config
	if config == "" {
		config = "Q=80\n"
	}
	for name, content := range map[string]string{"fw.sh": text, "conf.sh": config, "helper.sh": "#!/bin/sh\niptables -I INPUT -s 10.0.0.0/8 -j DROP\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			return "", err
		}
	}
	shell := "bash"
	if s.posix {
		shell = "dash"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell, "fw.sh")
	cmd.Dir = dir
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second // for what it has left in the background
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has left
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return "", err
	}
	if ctx.Err() != nil {
		return "", errTooLong
	}
	return string(out), nil
}

var errTooLong = errors.New("runs for too long")

var sources = []string{"192.0.2.7", "192.0.2.8", "198.51.100.9", "10.1.2.3", "203.0.113.1", "2001:db8::7"}

var ports = []uint16{1, 2, 3, 15, 20, 22, 23, 43, 44, 52, 53, 54, 58, 80, 81, 82, 106, 138, 160, 220, 221, 280, 442, 443, 444, 501, 886, 3306, 3307, 6612, 8080, 8081, 8082, 8138, 16160, 65535}

// compare draws one script, and says what is wrong with its import.
func compare(seed uint64, bin, dir string, sum *tally) string {
	s := draw(seed)
	if *show {
		fmt.Printf("--- %d\n%s", seed, s.text)
	}
	left, output, err := run(s, bin, filepath.Join(dir, "work"))
	if errors.Is(err, errTooLong) {
		return ""
	}
	if err != nil {
		return fmt.Sprintf("seed %d: %v\n%s", seed, err, s.text)
	}
	result, err := iptables.ImportWith([]iptables.File{{Name: "fw.sh", Data: []byte(s.text)}}, iptables.Options{Keep: true})
	sum.Lock()
	defer sum.Unlock()
	sum.scripts++
	if errors.Is(err, iptables.ErrNoRules) {
		sum.noRules++
		return ""
	}
	if err != nil {
		return fmt.Sprintf("seed %d: %v\n%s", seed, err, s.text)
	}
	narrower := ""
	for _, source := range sources {
		from := netip.MustParseAddr(source)
		for _, protocol := range []string{"tcp", "udp"} {
			for _, port := range ports {
				p := fake.Packet{Source: from, Protocol: protocol, Port: port}
				family := 0
				if from.Is6() {
					family = 1
				}
				let := left[family].Accepts(p) && left[family+2].Accepts(p)
				opened := allows(result.Policy, p)
				if let && left[family].Chains["INPUT"].Policy == "DROP" {
					sum.let++
				}
				if opened && left[family].Chains["INPUT"].Policy == "DROP" {
					sum.opened++
				}
				switch {
				case opened && !let:
					return fmt.Sprintf("seed %d: wider: %v\n%s--- conf.sh\n%s--- output\n%s--- rules\n%s\n%s--- import\n%s", seed, p, s.text, s.config, output,
						left[0].Text(), left[1].Text(), result.YAML())
				case let && !opened && narrower == "" && left[family].Chains["INPUT"].Policy == "DROP":
					narrower = fmt.Sprint(p)
				}
			}
		}
	}
	exact := narrower == ""
	switch {
	case narrower != "" && len(result.Untranslated) == 0:
		return fmt.Sprintf("seed %d: narrower, and nothing says so: %s\n%s--- conf.sh\n%s--- output\n%s--- rules\n%s\n%s--- import\n%s", seed, narrower, s.text, s.config, output,
			left[0].Text(), left[1].Text(), result.YAML())
	case exact: // what is listed is about other packets
		sum.exact++
	default:
		sum.listed++
	}
	if s.plain {
		sum.plain++
		if narrower == "" {
			sum.plainExact++
		} else if *show {
			fmt.Printf("narrower: %s\n%s", narrower, result.YAML())
		}
	}
	return ""
}

// allows reports whether a policy lets a packet in.
func allows(p *policy.Policy, k fake.Packet) bool {
	if slices.ContainsFunc(p.Block, func(s policy.Source) bool {
		return slices.ContainsFunc(s.Prefixes(), func(n netip.Prefix) bool { return n.Contains(k.Source) })
	}) {
		return false
	}
	if p.Input == policy.Accept {
		return true
	}
	protocol := policy.TCP
	if k.Protocol == "udp" {
		protocol = policy.UDP
	}
	to := netip.MustParseAddr("192.0.2.1")
	if k.Source.Is6() {
		to = netip.MustParseAddr("2001:db8::1")
	}
	for _, r := range p.Open {
		if r.Admits(policy.Packet{Interface: "eth0", Protocol: protocol, Port: k.Port, Source: k.Source, Destination: to}) {
			return true
		}
	}
	return false
}
