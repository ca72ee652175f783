// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

func TestTopOnce(t *testing.T) {
	l := lab.New(t)
	path := filepath.Join(t.TempDir(), "portcullis.yaml")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	program := lab.ProgramWithDaemon(t)
	command := func(args ...string) *exec.Cmd {
		return l.Server.Command(program, append([]string{"--pin-path", l.PinPath, "--config", path}, args...)...)
	}
	if b, err := command("top", "--once").CombinedOutput(); err == nil || !strings.Contains(string(b), "not running") {
		t.Errorf("without a filter: %v: %s", err, b)
	}
	if b, err := command("up", "eth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	done := make(chan []byte)
	go func() {
		b, err := command("top", "--once", "-o", "json", "--interval", "2s").CombinedOutput()
		if err != nil {
			b = fmt.Appendf(b, "\n%v", err)
		}
		done <- b
	}()
	time.Sleep(700 * time.Millisecond)
	flood(t, l, 400)
	b := <-done
	var v struct {
		Seconds float64
		Reasons []struct {
			Name, Verdict      string
			Packets            uint64
			Packets_per_second float64
		}
		Rules   []struct{ Name string }
		Sources []struct {
			Address                        string
			Drops_sampled, Drops_estimated uint64
		}
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	found := false
	for _, r := range v.Reasons {
		found = found || r.Name == "closed port" && r.Verdict == "drop" && r.Packets_per_second*v.Seconds > 350
	}
	if !found || len(v.Rules) != 1 || v.Rules[0].Name != "9/udp" {
		t.Errorf("400 packets were dropped, and it says %s", b)
	}
	if len(v.Sources) == 0 || v.Sources[0].Address != lab.ClientV4.String() || v.Sources[0].Drops_estimated < 395 || v.Sources[0].Drops_estimated > 420 ||
		v.Sources[0].Drops_sampled == 0 || v.Sources[0].Drops_sampled > 400 {
		t.Errorf("400 packets of %s were dropped, and it says %+v", lab.ClientV4, v.Sources)
	}
	if b, err := command("top", "-o", "json").CombinedOutput(); err == nil || !strings.Contains(string(b), "-o json is for --once") {
		t.Errorf("%v: %s", err, b)
	}
	if b, err := command("down").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, b)
	}
}

// In a terminal of 60 columns it shows what is dropped, takes keys, bans who is typed, and leaves when told to.
func TestTopInATerminal(t *testing.T) {
	lab.NeedProgram(t, "tmux")
	l := lab.New(t)
	path := filepath.Join(t.TempDir(), "portcullis.yaml")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	program := lab.ProgramWithDaemon(t)
	if b, err := l.Server.Command(program, "--pin-path", l.PinPath, "--config", path, "up", "eth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	t.Cleanup(func() { l.Server.Command(program, "--pin-path", l.PinPath, "down").Run() })
	socket := filepath.Join(t.TempDir(), "tmux")
	tmux := func(args ...string) (string, error) {
		b, err := exec.Command("tmux", append([]string{"-f", "/dev/null", "-S", socket}, args...)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("tmux %s: %w: %s", strings.Join(args, " "), err, b)
		}
		return string(b), err
	}
	top := strings.Join(l.Server.Command(program, "--pin-path", l.PinPath, "top", "--interval", "500ms").Args, " ")
	if _, err := tmux("new-session", "-d", "-x", "60", "-y", "20", top+"; echo it is over; sleep 60"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tmux("kill-server") })
	shows := func(want ...string) {
		t.Helper()
		eventually(t, 15*time.Second, func() error {
			text, err := tmux("capture-pane", "-p")
			if err != nil {
				return err
			}
			for _, w := range want {
				if !strings.Contains(text, w) {
					return fmt.Errorf("%q is not on the screen:\n%s", w, text)
				}
			}
			return nil
		})
	}
	press := func(keys ...string) {
		t.Helper()
		if _, err := tmux(append([]string{"send-keys"}, keys...)...); err != nil {
			t.Fatal(err)
		}
	}
	shows("REASONS", "PKTS/S", "q quit")
	flood(t, l, 300)
	shows("drop closed port", "300", "pass rule")
	press("Tab")
	shows("RULES", "> 9/udp")
	press("b")
	press("198.51.100.7", "Enter")
	shows("ban 198.51.100.7 for an hour? y/n")
	press("y")
	shows("198.51.100.7 is banned for an hour")
	if b, err := l.Server.Command(program, "--pin-path", l.PinPath, "bans").CombinedOutput(); err != nil || !strings.Contains(string(b), "198.51.100.7") {
		t.Errorf("%v: %s", err, b)
	}
	press("4")
	shows("DROPPED SOURCES", "nothing was dropped")
	time.Sleep(time.Second) // till a look has begun the sample
	flood(t, l, 300)
	shows("> " + lab.ClientV4.String())
	press("b")
	shows("ban " + lab.ClientV4.String() + " for an hour? y/n")
	press("y")
	shows(lab.ClientV4.String() + " is banned for an hour")
	press("q")
	shows("it is over")
}
