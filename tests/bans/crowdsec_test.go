// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A real CrowdSec, of which no more runs than the local API: nothing is told to anybody elsewhere.
func TestCrowdSec(t *testing.T) {
	lab.NeedProgram(t, "crowdsec")
	lab.NeedProgram(t, "cscli")
	s := newServer(t)
	s.must(os.MkdirAll(s.path("crowdsec/data"), 0o755))
	s.write("crowdsec/profiles.yaml", "name: default\nfilters:\n - false\ndecisions:\n - type: ban\n   duration: 4h\non_success: break\n")
	s.write("crowdsec/simulation.yaml", "simulation: false\n")
	s.write("crowdsec/config.yaml", strings.ReplaceAll(`common:
  daemonize: false
  log_media: stdout
  log_level: info
  working_dir: DIR
config_paths:
  config_dir: DIR
  data_dir: DIR/data
  simulation_path: DIR/simulation.yaml
  hub_dir: DIR/hub
  index_path: DIR/hub/.index.json
crowdsec_service:
  acquisition_path: DIR/acquis.yaml
cscli:
  output: human
db_config:
  type: sqlite
  db_path: DIR/data/crowdsec.db
api:
  client:
    credentials_path: DIR/credentials.yaml
  server:
    listen_uri: 127.0.0.1:8080
    profiles_path: DIR/profiles.yaml
prometheus:
  enabled: false
`, "DIR", s.path("crowdsec")))
	s.write("crowdsec/credentials.yaml", "")
	config := s.path("crowdsec/config.yaml")
	cscli := func(args ...string) string {
		t.Helper()
		cmd := s.command("cscli", append([]string{"-c", config}, args...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("cscli %q: %v\n%s%s", args, err, out, stderr.String())
		}
		return strings.TrimSpace(string(out))
	}
	cscli("machines", "add", "test", "--password", "secret", "--url", "http://127.0.0.1:8080", "--force")
	s.write("key", cscli("bouncers", "add", "portcullis", "-o", "raw")+"\n")
	s.must(os.Chmod(s.path("key"), 0o600))

	var log strings.Builder
	start := func(name string, args ...string) (stop func()) {
		t.Helper()
		cmd := s.command(name, args...)
		cmd.Stderr = &log
		s.must(cmd.Start())
		stopped := false
		stop = func() {
			if !stopped {
				stopped = true
				cmd.Process.Signal(os.Interrupt)
				time.AfterFunc(patience, func() { cmd.Process.Kill() })
				cmd.Wait()
			}
		}
		t.Cleanup(stop)
		return stop
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("they say\n%s", log.String())
		}
	})
	api := func() (stop func()) {
		t.Helper()
		stop = start("crowdsec", "-c", config, "-no-cs", "-no-capi")
		for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			if s.command("cscli", "-c", config, "decisions", "list").Run() == nil {
				return stop
			}
			if time.Now().After(end) {
				t.Fatal("CrowdSec does not start")
			}
		}
	}
	stopAPI := api()
	bouncer := func() (stop func()) {
		return start(s.program, "bouncer", "--key-file", s.path("key"), "--interval", "1s")
	}
	peer := lab.ClientV4.String()
	reason := func(text string) string { return "crowdsec: " + text }
	cscli("decisions", "add", "--ip", "198.51.100.1", "--duration", "1h", "--reason", "before")
	s.portcullis("ban", "198.51.100.2", "--for", "1h", "--reason", "by hand")
	stopBouncer := bouncer()
	s.await("198.51.100.1", reason("before"), "198.51.100.2", "by hand")

	open := s.opens()
	cscli("decisions", "add", "--ip", peer, "--duration", "1h", "--reason", "ssh-bf")
	cscli("decisions", "add", "--range", "198.51.100.64/26", "--duration", "1h", "--reason", "range")
	cscli("decisions", "add", "--ip", "2001:db8:77::7", "--duration", "1h", "--reason", "six")
	cscli("decisions", "add", "--range", "2001:db8:78::/48", "--duration", "1h", "--reason", "six")
	all := []string{"198.51.100.1", reason("before"), "198.51.100.2", "by hand", peer, reason("ssh-bf"), "198.51.100.64/26", reason("range"),
		"2001:db8:77::7", reason("six"), "2001:db8:78::/48", reason("six")}
	s.await(all...)
	s.isShutOut(open)

	// A bouncer that is not there changes nothing, and finds out what it has missed.
	stopBouncer()
	s.isShutOut(open)
	cscli("decisions", "delete", "--ip", peer)
	cscli("decisions", "delete", "--range", "198.51.100.64/26")
	bouncer()
	s.await("198.51.100.1", reason("before"), "198.51.100.2", "by hand", "2001:db8:77::7", reason("six"), "2001:db8:78::/48", reason("six"))
	s.opens()

	// So does one whose CrowdSec was away.
	stopAPI()
	time.Sleep(1500 * time.Millisecond)
	if have := s.bans(); len(have) != 4 {
		t.Errorf("without CrowdSec banned are %v", have)
	}
	api()
	cscli("decisions", "add", "--ip", peer, "--duration", "1h", "--reason", "again")
	cscli("decisions", "delete", "--ip", "2001:db8:77::7")
	s.await("198.51.100.1", reason("before"), "198.51.100.2", "by hand", peer, reason("again"), "2001:db8:78::/48", reason("six"))

	// Whom the guard protects is let in, and the others are banned.
	own := lab.ServerV4.String()
	cscli("decisions", "add", "--ip", own, "--duration", "1h", "--reason", "wrong")
	cscli("decisions", "add", "--ip", "198.51.100.9", "--duration", "10s", "--reason", "short")
	s.await("198.51.100.1", reason("before"), "198.51.100.2", "by hand", peer, reason("again"), "2001:db8:78::/48", reason("six"), "198.51.100.9", reason("short"))
	s.await("198.51.100.1", reason("before"), "198.51.100.2", "by hand", peer, reason("again"), "2001:db8:78::/48", reason("six"))
	cscli("decisions", "delete", "--all")
	s.await("198.51.100.2", "by hand")
	if want := fmt.Sprintf("not banned: %s is an address of this host", own); !strings.Contains(log.String(), want) {
		t.Errorf("nobody says %q", want)
	}
}
