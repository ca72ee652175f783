// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// stand is a host without a kernel that filters, and a firewall on it.
type stand struct {
	*firewalltest.Kernel
	*testing.T
	dir, file string
	fw        *firewall.Firewall
}

func newStand(t *testing.T, text string) *stand {
	t.Helper()
	dir := t.TempDir()
	s := &stand{Kernel: &firewalltest.Kernel{Route: "eth0"}, T: t, dir: dir, file: filepath.Join(dir, "portcullis.yaml")}
	s.writes(s.file, text)
	s.fw = firewall.New(s.options())
	return s
}

func (s *stand) options() firewall.Options {
	return firewall.Options{PinPath: filepath.Join(s.dir, "pins"), Config: s.file, ConfigGiven: true, Wait: time.Second, Kernel: s.Kernel,
		RunDir: filepath.Join(s.dir, "run"), Session: func() string { return "" }}
}

func (s *stand) writes(path, text string) {
	s.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

// opens checks which rules are in force.
func (s *stand) opens(rules ...string) {
	s.Helper()
	var got []string
	for _, r := range s.Running.Open {
		got = append(got, r.String())
	}
	if !slices.Equal(got, rules) {
		s.Errorf("open are %q, want %q", got, rules)
	}
}

func (s *stand) rules(texts ...string) (rules []policy.Rule) {
	s.Helper()
	for _, text := range texts {
		r, err := policy.ParseRule(text)
		if err != nil {
			s.Fatal(err)
		}
		rules = append(rules, r)
	}
	return rules
}

// follower returns a follower that has started.
func (s *stand) follower() *firewall.Follower {
	s.Helper()
	fl := s.fw.Follow(firewall.FollowRequest{Mode: loader.ModeAuto})
	if _, err := fl.Start(context.Background()); err != nil {
		s.Fatal(err)
	}
	return fl
}

func (s *stand) open(runtime bool, rules ...string) {
	s.Helper()
	if _, err := s.fw.Open(context.Background(), firewall.OpenRequest{Rules: s.rules(rules...), Runtime: runtime}); err != nil {
		s.Fatal(err)
	}
}

func (s *stand) close(runtime bool, rules ...string) {
	s.Helper()
	if _, err := s.fw.Close(context.Background(), firewall.CloseRequest{Rules: s.rules(rules...), Runtime: runtime}); err != nil {
		s.Fatal(err)
	}
}

// says checks what there is to say: nothing, or something with a text in it.
func (s *stand) says(notes []firewall.Note, want string) {
	s.Helper()
	var all strings.Builder
	for _, n := range notes {
		all.WriteString(n.Text + "\n")
	}
	if got := all.String(); (got == "") != (want == "") || !strings.Contains(got, want) {
		s.Errorf("it says %q, want %q", got, want)
	}
}

// What somebody decided at runtime stays in force until the file itself changes, or somebody asks for the file.
func TestWhatWasDecidedAtRuntimeStays(t *testing.T) {
	const text = "interfaces: [eth0]\nopen: [ssh, http]\n"
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		decide func(*stand)
		stays  []string
		edited string // the policy file, and what is in force by it
		then   []string
	}{
		{"a rule closed", func(s *stand) { s.close(true, "http") }, []string{"ssh"}, text + "icmp: drop\n", []string{"ssh", "http"}},
		{"a rule opened", func(s *stand) { s.open(true, "https") }, []string{"ssh", "http", "https"}, text + "icmp: drop\n", []string{"ssh", "http"}},
		{"another file applied", func(s *stand) {
			candidate := filepath.Join(s.dir, "candidate.yaml")
			s.writes(candidate, "open: [ssh, imaps]\n")
			if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{File: candidate}); err != nil {
				s.Fatal(err)
			}
		}, []string{"ssh", "imaps"}, text + "icmp: drop\n", []string{"ssh", "http"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t, text)
			fl := s.follower()
			c.decide(s)
			s.says(fl.ApplyChanged(ctx), "")
			s.opens(c.stays...)
			s.open(false, "ftp")
			s.says(fl.ApplyChanged(ctx), "")
			s.opens(append(slices.Clone(c.stays), "ftp")...)
			s.close(false, "ftp")
			s.says(fl.ApplyChanged(ctx), "")
			s.opens(c.stays...)
			// Another agent finds it decided as well.
			fl = s.follower()
			s.opens(c.stays...)

			s.writes(s.file, c.edited)
			s.says(fl.ApplyChanged(ctx), "has changed")
			s.opens(c.then...)
		})
	}

	// A reload is asked for.
	s := newStand(t, text)
	fl := s.follower()
	s.close(true, "http")
	fl.Reload(ctx)
	s.opens("ssh", "http")

	// An edit that nobody has put in force yet is not lost when a command edits the file, too.
	s.writes(s.file, text+"icmp: drop\n")
	s.open(false, "ftp")
	if s.Running.ICMP.Mode == policy.ICMPDrop {
		t.Fatal("open has applied more than a rule")
	}
	s.says(fl.ApplyChanged(ctx), "has changed")
	if s.Running.ICMP.Mode != policy.ICMPDrop {
		t.Error("the edit of before is lost")
	}

	// Nor one that save has overwritten.
	s.close(true, "http")
	if _, err := s.fw.Save(ctx); err != nil {
		t.Fatal(err)
	}
	s.says(fl.ApplyChanged(ctx), "")
	s.opens("ssh", "ftp")
}

// A file under which nobody could come in any more to repair it is not put in force, and told of.
func TestFollowerGuardsTheWayIn(t *testing.T) {
	ctx := context.Background()
	const text = "interfaces: [eth0]\nopen: [ssh, http]\n"
	for _, c := range []struct {
		name, edited string
		sshd         []uint16
		refused      string
	}{
		{"empty", "", nil, "nothing in the file"},
		{"blank", "\n \n", nil, "nothing in the file"},
		{"no sshd could be reached", "interfaces: [eth0]\n", []uint16{22}, "an sshd listens on port 22, which no rule opens"},
		{"nobody can come from there", "open: [22/tcp from 240.0.0.1]\n", []uint16{22}, "an sshd listens on port 22, which no rule opens"},
		{"nobody can come from there", "open: [22/tcp from 127.0.0.1]\n", []uint16{22}, "nobody can come from"},
		{"none of two could be reached", "open: [http]\n", []uint16{22, 2222}, "an sshd listens on port 22, which no rule opens"},
		{"one of two can be reached", "open: [2222/tcp]\n", []uint16{22, 2222}, ""},
		{"some sources reach it", "open: [22/tcp from 192.0.2.0/24]\n", []uint16{22}, ""},
		{"everything comes in", "input: accept\n", []uint16{22}, ""},
		{"nothing is dropped", "enforce: false\ninterfaces: [eth0]\n", []uint16{22}, ""},
		{"nobody listens", "interfaces: [eth0]\n", nil, ""},
		{"it could not be reached before", "interfaces: [eth0]\n", []uint16{2222}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t, text)
			s.SSHD = c.sshd
			fl := s.follower()
			for _, put := range []func(context.Context) []firewall.Note{fl.ApplyChanged, fl.Reload} {
				s.writes(s.file, c.edited)
				notes := put(ctx)
				if c.refused == "" {
					if fl.Problem() != "" {
						t.Errorf("refused: %s", fl.Problem())
					}
					continue
				}
				s.says(notes, c.refused)
				s.opens("ssh", "http")
				if !strings.Contains(fl.Problem(), c.refused) {
					t.Errorf("the problem is %q", fl.Problem())
				}
			}
			if c.refused != "" {
				s.says(fl.ApplyChanged(ctx), "") // once is enough
				s.writes(s.file, text+"icmp: drop\n")
				s.says(fl.ApplyChanged(ctx), s.file+" is good again")
				if fl.Problem() != "" || s.Running.ICMP.Mode != policy.ICMPDrop {
					t.Errorf("the problem is %q", fl.Problem())
				}
			}
		})
	}
}

// What is dropped by nobody yet is guarded when the file enforces it.
func TestFollowerGuardsTheFlip(t *testing.T) {
	s := newStand(t, "enforce: false\ninterfaces: [eth0]\n")
	s.SSHD = []uint16{22}
	fl := s.follower()
	s.writes(s.file, "interfaces: [eth0]\n")
	s.says(fl.ApplyChanged(context.Background()), "an sshd listens on port 22, which no rule opens")
	if !s.Running.WatchOnly {
		t.Error("the policy is enforced")
	}
}

// A file that was bad for a while and says then what it said before is good again, too.
func TestFollowerSaysThatAFileIsGoodAgain(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	fl := s.follower()
	for _, bad := range []func(){
		func() { s.writes(s.file, "open: [htttp]\n") },
		func() { os.Remove(s.file) },
	} {
		bad()
		s.says(fl.ApplyChanged(ctx), "the policy in force stays")
		s.writes(s.file, "interfaces: [eth0]\nopen: [ssh]\n")
		s.says(fl.ApplyChanged(ctx), s.file+" is good again")
		s.says(fl.ApplyChanged(ctx), "")
	}
	s.opens("ssh")
}

// Another command at work delays the follower, and does not stop it.
func TestFollowerComesBackToWhatIsLocked(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	fl := s.fw.Follow(firewall.FollowRequest{Mode: loader.ModeAuto, Wait: 10 * time.Millisecond})
	if _, err := fl.Start(ctx); err != nil {
		t.Fatal(err)
	}
	unlock := s.lock()
	s.writes(s.file, "interfaces: [eth0]\nopen: [ssh, http]\n")
	s.says(fl.ApplyChanged(ctx), "")
	s.opens("ssh")
	if !fl.Delayed() {
		t.Error("it does not say that it has to come back")
	}
	unlock()
	s.says(fl.ApplyChanged(ctx), "has changed")
	s.opens("ssh", "http")
	if fl.Delayed() {
		t.Error("it would come back for nothing")
	}

	// A reload that somebody asks for is owed, though the file has not changed.
	s.close(true, "http")
	unlock = s.lock()
	fl.Reload(ctx)
	s.opens("ssh")
	if !fl.Delayed() {
		t.Error("a reload is forgotten")
	}
	unlock()
	fl.ApplyChanged(ctx)
	s.opens("ssh", "http")
	s.close(true, "http")
	fl.ApplyChanged(ctx)
	s.opens("ssh")
}

// A file that everybody can write to is not applied, until it is mended.
func TestAnUntrustedFileIsNotApplied(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	fl := s.follower()
	s.writes(s.file, "interfaces: [eth0]\nopen: [ssh, http]\n")
	if err := os.Chmod(s.file, 0o666); err != nil {
		t.Fatal(err)
	}
	s.says(fl.ApplyChanged(ctx), `(mode 0666): run "chmod o-w `+s.file+`"; the policy in force stays`)
	s.opens("ssh")
	if err := os.Chmod(s.file, 0o600); err != nil {
		t.Fatal(err)
	}
	fl.ApplyChanged(ctx)
	s.opens("ssh", "http")
}

// At the next boot /etc/services may say something else than today.
func TestTheLastGoodPolicyIsKeptInNumbers(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [https, ssh from 192.0.2.1]\n")
	o := s.options()
	o.StateDir = s.dir
	if _, err := firewall.New(o).Up(context.Background(), firewall.UpRequest{Mode: loader.ModeAuto}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "last-good.yaml"))
	if err != nil || strings.Contains(string(text), "ssh") || !strings.Contains(string(text), "  - 22/tcp from 192.0.2.1\n") ||
		!strings.Contains(string(text), "  - 443/tcp\n") {
		t.Errorf("kept is %q, %v", text, err)
	}
}

// Where nothing is filtered yet, as at a boot, an empty file is a bad one, and there is something to fall back to.
func TestBootWithAnEmptyFile(t *testing.T) {
	for _, text := range []string{"", "\n"} {
		s := newStand(t, "interfaces: [eth0]\nopen: [ssh, http]\n")
		o := s.options()
		o.StateDir = filepath.Join(s.dir, "state")
		s.fw = firewall.New(o)
		s.follower()
		if _, err := s.fw.Down(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		s.Running = nil
		s.writes(s.file, text)
		fl := s.follower()
		s.opens("22/tcp", "80/tcp")
		if !strings.Contains(fl.Problem(), "nothing in the file") {
			t.Errorf("the problem is %q", fl.Problem())
		}
	}
}

// A policy that has waited for an interface counts as applied, as any other.
func TestWhatHasWaitedCountsAsApplied(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "open: [ssh, http]\n")
	s.Route = ""
	fl := s.follower()
	if !fl.Waits() {
		t.Fatal("it does not wait")
	}
	s.Route = "eth0"
	fl.ApplyWaiting(ctx)
	s.opens("ssh", "http")
	s.close(true, "http")
	s.open(false, "ftp")
	s.says(fl.ApplyChanged(ctx), "")
	s.opens("ssh", "ftp")
}

// An agent that starts anew does not complain of what somebody has forced.
func TestWhatWasForcedIsNoProblem(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.SSHD = []uint16{22}
	s.follower()
	s.writes(s.file, "interfaces: [eth0]\nopen: [http]\n")
	if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	s.open(true, "ssh")
	if fl := s.follower(); fl.Problem() != "" {
		t.Errorf("the problem is %q", fl.Problem())
	}
	s.opens("http", "ssh")
}

// At a boot without a file nothing listens yet: the ports open for which sshd is configured.
func TestTheBuiltInPolicyOpensConfiguredPorts(t *testing.T) {
	s := newStand(t, "")
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	s.SSHConfig = []uint16{2222, 22, 2222}
	s.follower()
	s.opens("ssh", "2222/tcp")
}
