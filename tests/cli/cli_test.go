// SPDX-License-Identifier: Apache-2.0

// Package cli tests the command line as a user meets it: each script in
// testdata types commands at a server in a network namespace of its own, whose
// eth0 leads to a client, and says what they print and how they exit.
package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

func TestScripts(t *testing.T) {
	lab.RequireRoot(t)
	program := lab.ProgramWithDaemon(t)
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			s := &server{lab: lab.New(t), program: program}
			t.Cleanup(func() {
				os.RemoveAll(s.lab.PinPath + "-other")
				os.RemoveAll(s.lab.State() + "-other")
			})
			testscript.Run(t, testscript.Params{
				Files:               []string{script},
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup:               s.setUp,
				Condition:           condition,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"portcullis": s.portcullis,
					"exits":      s.exits,
					"json":       isJSON,
					"ip":         s.ip,
					"listen":     s.listen,
					"connect":    s.connect,
					"services":   s.useServices,
					"service":    s.service,
					"agent":      s.agent,
					"await":      s.await,
					"slowly":     s.slowly,
				},
			})
		})
	}
}

// server is the host at which a script types.
type server struct {
	lab      *lab.Lab
	program  string
	services string // the file that stands in the place of /etc/services, or ""

	log  *agentLog // of its agent
	kill func()    // the agent
}

func (s *server) setUp(e *testscript.Env) error {
	e.Setenv("PORTCULLIS_PIN_PATH", s.lab.PinPath)
	e.Setenv("PIN", s.lab.PinPath)
	e.Setenv("STATE", s.lab.State())
	e.Setenv("SCHEMA", loader.Schema)
	e.Setenv("PORTCULLIS", s.program)
	e.Setenv("NETNS", "/run/netns/"+s.lab.Server.Name)
	// As if this test had not been started over ssh.
	e.Setenv("SSH_CONNECTION", "")
	return nil
}

// command returns the command line that runs the program at the server.
func (s *server) command(ts *testscript.TestScript, args []string) []string {
	args = append([]string{"nsenter", "--net=" + ts.Getenv("NETNS"), s.program}, args...)
	if s.services != "" {
		const bind = `mount --bind "$1" /etc/services && shift && exec "$@"`
		args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh", s.services}, args...)
	}
	return args
}

func (s *server) onServer(ts *testscript.TestScript, args []string) error {
	args = s.command(ts, args)
	return ts.Exec(args[0], args[1:]...)
}

// services FILE makes a file /etc/services for the program, from now on.
func (s *server) useServices(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: services FILE")
	}
	s.services = ts.MkAbs(args[0])
}

// condition knows [configured], this machine has a policy file of its own, and [services], it has a list of services.
func condition(name string) (bool, error) {
	path := map[string]string{"configured": "/etc/portcullis", "services": "/etc/services"}[name]
	if path == "" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	_, err := os.Stat(path)
	return err == nil, nil
}

// portcullis ARG... runs the program, which has to succeed, or with ! to fail.
func (s *server) portcullis(ts *testscript.TestScript, neg bool, args []string) {
	err := s.onServer(ts, args)
	if err != nil && !neg {
		ts.Fatalf("portcullis failed: %v", err)
	}
	if err == nil && neg {
		ts.Fatalf("portcullis succeeded")
	}
}

// exits CODE ARG... runs the program, which has to exit with the code.
func (s *server) exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE [ARG...]")
	}
	code := 0
	if err := s.onServer(ts, args[1:]); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("portcullis exits with %d, want %s", code, args[0])
	}
}

// json KEY... checks that stdout of the last command is one JSON value that has the keys, and no null.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile("stdout")
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		ts.Fatalf("stdout is not JSON: %v", err)
	}
	if strings.Contains(text, "null") {
		ts.Fatalf("there is a null in the JSON")
	}
	object, _ := value.(map[string]any)
	for _, key := range args {
		if _, ok := object[key]; ok == neg {
			ts.Fatalf("key %q: want it %t", key, !neg)
		}
	}
}

// ip ARG... changes the server's network.
func (s *server) ip(ts *testscript.TestScript, neg bool, args []string) {
	if err := ts.Exec("ip", append([]string{"-n", s.lab.Server.Name}, args...)...); (err != nil) != neg {
		ts.Fatalf("ip: %v", err)
	}
}

// listen PORT accepts connections at the server, and keeps them.
func (s *server) listen(ts *testscript.TestScript, _ bool, args []string) {
	err := s.lab.Server.Try(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%s", lab.ServerV4, args[0]))
		if err != nil {
			return err
		}
		ts.Defer(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				ts.Defer(func() { c.Close() })
			}
		}()
		return nil
	})
	ts.Check(err)
}

// connect PORT connects from the client to the server, and keeps the connection; with ! there must be no answer.
func (s *server) connect(ts *testscript.TestScript, neg bool, args []string) {
	timeout := 3 * time.Second
	if neg {
		timeout = 300 * time.Millisecond
	}
	err := s.lab.Client.Try(func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%s", lab.ServerV4, args[0]), timeout)
		if err == nil {
			ts.Defer(func() { c.Close() })
		}
		return err
	})
	if (err != nil) != neg {
		ts.Fatalf("connect to port %s: %v", args[0], err)
	}
}
