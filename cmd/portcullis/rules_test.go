// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/policy"
)

const commented = "# Mine.\nopen:\n  - ssh   # the office\n"

func TestParseRulesJoinsWords(t *testing.T) {
	for _, c := range []struct {
		args string // separated by |
		want []string
	}{
		{"http", []string{"http"}},
		{"http|https/tcp", []string{"http", "https/tcp"}},
		{"22/tcp|from|192.0.2.0/24", []string{"22/tcp from 192.0.2.0/24"}},
		{"22/tcp from 192.0.2.0/24", []string{"22/tcp from 192.0.2.0/24"}},
		{"22/tcp|FROM|192.0.2.1,|192.0.2.2|http", []string{"22/tcp from 192.0.2.1,192.0.2.2", "http"}},
		{"22/tcp|from|192.0.2.1|,|192.0.2.2|http", []string{"22/tcp from 192.0.2.1,192.0.2.2", "http"}},
		{"22/tcp from|192.0.2.1|http|from|2001:db8::/32", []string{"22/tcp from 192.0.2.1", "http from 2001:db8::/32"}},
		{"http|80/tcp", []string{"http"}},
	} {
		rules, err := new(app).parseRules(t.Context(), strings.Split(c.args, "|"), false)
		if err != nil || !slices.Equal(policy.Texts(rules), c.want) {
			t.Errorf("%s: %q, %v; want %q", c.args, policy.Texts(rules), err, c.want)
		}
	}
}

func TestBadRulesAreUsage(t *testing.T) {
	h := newHost(t)
	for _, verb := range []string{"open", "close"} {
		h.types(2, verb)
		h.types(2, verb, "from", "192.0.2.1")
		h.types(2, verb, "22/tcp", "from")
		h.types(2, verb, "htttp", "99999/tcp")
		h.complains(`portcullis: unknown service "htttp"`, "portcullis: port \"99999\"")
	}
}

func TestOpenSavesAndKeepsComments(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.types(0, "open", "http")
	h.says("opened http\n", "saved to "+path+"\n")
	h.holds(path, commented+"  - http\n")
	h.opens("ssh", "http")
	h.types(0, "open", "80/tcp")
	h.says("already open: 80/tcp\n")
	if strings.Contains(h.stdout, "saved") {
		t.Error("says that it saved what was there")
	}
	h.holds(path, commented+"  - http\n")
	h.types(0, "open", "https/tcp", "-o", "json")
	var v firewall.OpenReport
	h.json(&v)
	if !slices.Equal(v.Opened, []string{"https/tcp"}) || len(v.Saved) != 1 || v.Config != path || v.Created {
		t.Errorf("JSON of open: %+v", v)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("the mode of the file is now %v", info.Mode())
	}
}

func TestRuntimeLeavesTheFile(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.types(0, "open", "http", "--runtime")
	h.says("opened http\n", "not saved")
	h.types(0, "open", "http", "--runtime", "-o", "json")
	h.types(0, "close", "ssh", "--runtime")
	h.says("closed ssh\n", "not saved")
	h.holds(path, commented)
	h.opens("http")
}

func TestOpenBringsFileAndFilterTogether(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.types(0, "open", "http", "--runtime")
	h.types(0, "open", "http")
	h.says("already open: http\n", "saved to")
	h.holds(path, commented+"  - http\n")
	h.types(0, "close", "http", "--runtime")
	h.types(0, "close", "http")
	h.says("not open: http\n", "saved to")
	h.holds(path, commented)
}

func TestChangesWriteTheFileThatIsNamed(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	other := h.writes("open: []\n")
	h.types(0, "--config", other, "open", "http")
	h.holds(other, "open: [http]\n")
	h.holds(path, commented)
	h.types(1, "open", "https", "--config", filepath.Join(t.TempDir(), "typo.yaml"))
	h.complains("typo.yaml", "nothing was changed")
	h.opens("ssh", "http")
}

func TestFailureRestoresTheFile(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.Fail = errors.New("the kernel says no")
	h.types(1, "open", "http")
	h.complains("the kernel says no")
	h.holds(path, commented)
	h.types(1, "close", "ssh")
	h.holds(path, commented)

	// A file that was not there before goes again, with its directory.
	dir := filepath.Join(t.TempDir(), "etc")
	h.File = filepath.Join(dir, "portcullis.yaml")
	h.types(1, "open", "http")
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s stays behind", dir)
	}
}

func TestUnwritableFileChangesNothing(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	// A directory in the place of the file cannot be replaced, by root neither.
	os.Remove(path)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"open", "close"} {
		h.types(1, verb, "http")
		h.complains("nothing was changed", "--runtime")
	}
	h.opens("ssh")
}

func TestBadFileChangesNothing(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	os.WriteFile(path, []byte("open: [ssh\n"), 0o644)
	h.types(1, "open", "http")
	h.complains(path + ":")
	h.types(1, "close", "ssh")
	h.opens("ssh")
}

func TestOpenCreatesTheFileOfABuiltInPolicy(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	h.File = filepath.Join(t.TempDir(), "etc", "portcullis.yaml")
	h.types(0, "open", "8080/tcp", "--runtime")
	h.types(0, "close", "https")
	if _, err := os.Stat(h.File); err == nil {
		t.Error("a close of what is not open writes a file")
	}
	h.types(0, "open", "http")
	h.says("saved to "+h.File+", a new file", "stays open")
	h.holds(h.File, firewall.FileHeader+"interfaces: [eth0]\ninput: drop\nforward: drop\nicmp: accept\nopen:\n  - ssh\n  - http\ninvalid: log\n")
	h.opens("ssh", "8080/tcp", "http")

	// So does a close, or else the next up would open it again.
	os.Remove(h.File)
	h.types(0, "close", "ssh")
	h.holds(h.File, firewall.FileHeader+"interfaces: [eth0]\ninput: drop\nforward: drop\nicmp: accept\nopen:\n  - http\ninvalid: log\n")
}

func TestClose(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.Live = 2
	h.types(0, "close", "22/tcp")
	h.says("closed ssh\n", "2 live connections go on", "saved to "+path)
	h.holds(path, "# Mine.\nopen: []\n")
	h.Live = 0
	h.types(0, "close", "ssh")
	h.says("not open: ssh\n")
	h.runs(commented)
	h.Live = 1
	h.types(0, "close", "ssh", "--kill")
	h.says("cut 1 connection\n")
	h.runs(commented)
	h.Live = 0
	h.types(0, "close", "ssh", "--kill")
	h.says("no live connection to cut\n")
	h.runs(commented)
	h.Live = 1
	h.types(0, "close", "ssh", "http", "-o", "json")
	var v firewall.CloseReport
	h.json(&v)
	if !slices.Equal(v.Closed, []string{"ssh"}) || !slices.Equal(v.NotOpen, []string{"http"}) || v.Kept != 1 {
		t.Errorf("JSON of close: %+v", v)
	}
}

func TestCloseOfPartOfARuleIsRefused(t *testing.T) {
	h := newHost(t)
	const text = "open: [1-1000/tcp]\n"
	path := h.runs(text)
	h.types(1, "close", "http")
	h.complains(`open through "1-1000/tcp"`)
	h.holds(path, text)

	// A rule of the running filter alone goes, and what stays open is told.
	h.types(0, "open", "http", "--runtime")
	h.types(0, "close", "http")
	h.says("closed http\n")
	h.complains("stays open because of 1-1000/tcp")
	h.holds(path, text)
	h.opens("1-1000/tcp")
}

func TestCloseGuardsTheSession(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.session = "203.0.113.5 50000 192.0.2.1 22"
	for _, args := range [][]string{{"close", "ssh"}, {"close", "ssh", "--runtime"}, {"close", "http", "22/tcp"}} {
		h.types(1, args...)
		h.complains("this session (203.0.113.5 to port 22)", `run "portcullis open 22/tcp from 203.0.113.5" first`, "--force")
	}
	h.holds(path, commented)
	h.opens("ssh")
	h.types(0, "close", "ssh", "--force")
	h.types(0, "close", "http") // locked out already
	h.types(0, "close", "ssh")
	h.types(1, "close", "ssh", "--kill") // which would end the session itself
	h.complains("this session (203.0.113.5 to port 22)", "--force")
	h.types(0, "close", "http", "--kill")
	h.types(0, "open", "ssh")
	h.types(0, "open", "22/tcp", "from", "203.0.113.5")
	h.types(0, "close", "ssh")
}
