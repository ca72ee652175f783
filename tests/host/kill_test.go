// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// victim is set for a copy of this test program that only puts a filter up, to be killed at it.
const victim = "PORTCULLIS_TEST_VICTIM"

func TestMain(m *testing.M) {
	if rule := os.Getenv(victim); rule != "" {
		p := policy.Default()
		r, err := policy.ParseRule(rule)
		if err == nil {
			p.Open = []policy.Rule{r}
			_, err = loader.Up(loader.Options{Interfaces: []string{"eth0"}, Policy: p})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// killedUp begins an up that opens rule, and kills it after a while. It tells whether it had ended by itself.
func killedUp(t *testing.T, l *lab.Lab, rule string, after time.Duration) bool {
	t.Helper()
	cmd := l.Server.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victim+"="+rule, loader.PinPathVariable+"="+l.PinPath)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	return timer.Stop() && err == nil
}

// Whenever a first up is killed, the host has no filter or a whole one, and the next command finds out which.
func TestKillTheFirstUp(t *testing.T) {
	l := lab.New(t)
	echo(t, l.Server, 7)
	echo(t, l.Server, 9)
	random := rand.New(rand.NewPCG(1, 2))
	var ended, running, none int
	for range 25 {
		if killedUp(t, l, "9/tcp", time.Duration(random.IntN(600))*time.Millisecond) {
			ended++
		}
		var s *loader.Status
		err := l.Server.Try(func() error {
			f, err := loader.Open(l.PinPath)
			if err != nil {
				return err
			}
			defer f.Close()
			s, err = f.Status()
			return err
		})
		switch {
		case errors.Is(err, loader.ErrNotRunning):
			none++
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "no filter")
		case err != nil:
			t.Fatal(err)
		default:
			running++
			if len(s.Interfaces) != 1 || !s.Interfaces[0].Present || len(s.Rules) != 1 {
				t.Fatalf("half a filter: %+v", s)
			}
			mustNotDial(t, l.Client, lab.ServerV4, 7)
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "the open port")
			down(t, l)
		}
	}
	t.Logf("%d ended by themselves; afterwards %d whole filters, %d none", ended, running, none)
	up(t, l, loader.ModeAuto, policy.Default())
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	down(t, l)
	mustBeClean(t, l)
}

// Whenever a second up is killed, the old policy is in force or the new one, and nobody loses a connection.
func TestKillTheSecondUp(t *testing.T) {
	l := lab.New(t)
	for _, port := range []int{7, 9, 10} {
		echo(t, l.Server, port)
	}
	up(t, l, loader.ModeNative, policyOf(t, "7/tcp"))
	live := mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	random := rand.New(rand.NewPCG(3, 4))
	in := "7/tcp"
	for i := range 25 {
		next := []string{"9/tcp", "10/tcp"}[i%2]
		killedUp(t, l, next, time.Duration(random.IntN(600))*time.Millisecond)
		s := status(t, l)
		if len(s.Rules) != 1 || (s.Rules[0].Rule != in && s.Rules[0].Rule != next) {
			t.Fatalf("rules are %+v, want %s or %s", s.Rules, in, next)
		}
		in = s.Rules[0].Rule
		for _, port := range []int{9, 10} {
			if in == fmt.Sprintf("%d/tcp", port) {
				mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, port), "what status says is open")
			} else {
				mustNotDial(t, l.Client, lab.ServerV4, port)
			}
		}
		mustTalk(t, live, "the connection that was there before")
	}
	down(t, l)
	mustBeClean(t, l)
}
