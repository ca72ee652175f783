// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCheckInJSON(t *testing.T) {
	h := newHost(t)
	path := h.writes("interfaces: [lo0x]\ninput: block\nopen:\n  - htttp\n")
	var v struct {
		OK     bool
		Rules  []string
		Errors []checkError
	}
	h.types(1, "check", path, "-o", "json")
	h.json(&v)
	h.complains(path + ":2:8: ")
	if v.OK || len(v.Errors) != 2 {
		t.Fatalf("JSON: %+v", v)
	}
	for i, at := range [][2]int{{2, 8}, {4, 5}} {
		if e := v.Errors[i]; e.File != path || e.Line != at[0] || e.Column != at[1] || e.Message == "" || strings.Contains(e.Message, path) {
			t.Errorf("error %d: %+v", i, e)
		}
	}
	h.types(1, "check", path+".none", "-o", "json")
	h.json(&v)
	if v.OK || len(v.Errors) != 1 || v.Errors[0].File != path+".none" || !strings.Contains(v.Errors[0].Message, "no such file") {
		t.Errorf("JSON: %+v", v)
	}
	h.types(0, "check", h.writes("open: [http]\n"), "-o", "json")
	h.json(&v)
	if !v.OK || len(v.Errors) != 0 || !slices.Equal(v.Rules, []string{"http"}) {
		t.Errorf("JSON: %+v", v)
	}
}

// A path that somebody else has chosen writes no line of its own.
func TestPathsStayOnTheirLine(t *testing.T) {
	const evil = "a\nportcullis: \x1b[2Jall is well\tb"
	dir := filepath.Join(t.TempDir(), evil)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad, none := write(evil+".yaml", "forward: drop\nopen: [ssh]\n"), write("bad.yaml", "input: block\n"), filepath.Join(dir, "none.yaml")
	h := newHost(t)
	h.Forwarding = true
	rules := write("rules.sh", "iptables -P INPUT DROP\niptables -P FORWARD DROP\niptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT\n")
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"check", good}},
		{1, []string{"check", bad}},
		{1, []string{"check", none}},
		{1, []string{"check", dir}},
		{0, []string{"up", "--config", good}},
		{0, []string{"status"}},
		{0, []string{"apply"}},
		{1, []string{"apply", bad}},
		{1, []string{"diff", none}},
		{0, []string{"open", "http"}},
		{0, []string{"close", "http"}},
		{0, []string{"save"}},
		{0, []string{"audit"}},
		{0, []string{"try", good}},
		{1, []string{"open", "http"}},
		{0, []string{"revert"}},
		{0, []string{"import", rules, "--write", filepath.Join(dir, "new.yaml")}},
		{1, []string{"import", none}},
		{anyCode, []string{"doctor"}},
	} {
		var stdout, stderr strings.Builder
		e := h.env()
		e.stdout, e.stderr = &stdout, &stderr
		if code := run(e, c.args); code != c.code && c.code != anyCode {
			t.Errorf("%q exits with %d: %s", c.args, code, stderr.String())
		}
		text := stdout.String() + stderr.String()
		if strings.Contains(text, "\nportcullis: \\x1b[2Jall is well") || strings.Contains(text, "\x1b") || strings.Contains(text, "well\tb") {
			t.Errorf("%q prints %s", c.args, text)
		}
		if shows := strings.Contains(text, `a\nportcullis: \x1b[2Jall is well\tb`); !shows && c.args[0] == "check" {
			t.Errorf("%q does not show the path: %s", c.args, text)
		}
	}
}
