// SPDX-License-Identifier: Apache-2.0

// Package doctor tests "portcullis doctor" and "portcullis audit" on hosts that have what they look for: each
// condition is made for real, found, and mended by the very command that is printed.
package doctor

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/doctor"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// bin is a directory with the program under test, which is called portcullis there.
var bin string

func TestMain(m *testing.M) {
	holdIfAsked()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "portcullis-doctor-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			panic(err)
		}
		bin = dir
		build := exec.Command("go", "build", "-o", dir+"/portcullis", "github.com/portcullis-firewall/portcullis/cmd/portcullis")
		if built := os.Getenv("PORTCULLIS"); built != "" {
			build = exec.Command("cp", built, dir+"/portcullis")
		}
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// patient is a host that is examined.
type patient struct {
	*lab.Lab
	t      *testing.T
	config string
}

func newPatient(t *testing.T) *patient {
	p := &patient{lab.New(t), t, filepath.Join(t.TempDir(), "fw.yaml")}
	p.write("interfaces: [eth0]\nopen: [80/tcp]\n")
	return p
}

func (p *patient) write(policy string) {
	p.t.Helper()
	if err := os.WriteFile(p.config, []byte(policy), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// shell runs a command line on the host, and returns what it prints on stdout.
func (p *patient) shell(line string) (string, error) {
	cmd := p.Server.Command("sh", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PORTCULLIS_PIN_PATH="+p.PinPath, "SSH_CONNECTION=")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		p.t.Logf("%s: %v: %s", line, err, exit.Stderr)
	}
	return string(out), err
}

// must runs command lines that have to succeed.
func (p *patient) must(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		p.print(line)
	}
}

// print runs a command line that has to succeed, and returns what it prints.
func (p *patient) print(line string) string {
	p.t.Helper()
	out, err := p.shell(line)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// can skips the test where the kernel has not what it is about.
func (p *patient) can(line string) {
	p.t.Helper()
	if _, err := p.shell(line); err != nil {
		p.t.Skipf("not possible here: %s", line)
	}
}

// examine asks the doctor, whose exit code has to go with what it finds.
func (p *patient) examine(args string) []doctor.Check {
	p.t.Helper()
	return p.read(p.shell("portcullis doctor -o json --config " + p.config + " " + args))
}

func (p *patient) read(out string, err error) []doctor.Check {
	p.t.Helper()
	var view struct {
		Stopped bool
		Checks  []doctor.Check
	}
	if decoded := json.Unmarshal([]byte(out), &view); decoded != nil {
		p.t.Fatalf("%v: %v\n%s", err, decoded, out)
	}
	failed := slices.ContainsFunc(view.Checks, func(c doctor.Check) bool { return c.Verdict == doctor.Fail })
	if failed != (err != nil) || failed != view.Stopped {
		p.t.Errorf("exits with %v and says stopped %t: %+v", err, view.Stopped, view.Checks)
	}
	return view.Checks
}

// find returns the first check of a name that is not ok, or else one that is.
func (p *patient) find(checks []doctor.Check, group, name string) (found doctor.Check) {
	p.t.Helper()
	for _, c := range checks {
		if c.Group == group && c.Name == name && (found.Name == "" || found.Verdict == doctor.OK) {
			found = c
		}
	}
	if found.Name == "" {
		p.t.Fatalf("no check %s of %s: %+v", name, group, checks)
	}
	return found
}

// expect asks for a check, which has to say all of it.
func (p *patient) expect(group, name string, verdict doctor.Verdict, says ...string) doctor.Check {
	p.t.Helper()
	got := p.find(p.examine(""), group, name)
	for _, s := range append(says, "") {
		if got.Verdict != verdict || !strings.Contains(got.Text, s) {
			p.t.Fatalf("got %+v, want %s that says %q", got, verdict, s)
		}
	}
	return got
}
