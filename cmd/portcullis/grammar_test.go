// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenAndCloseWithEveryClause(t *testing.T) {
	h := newHost(t)
	const file = "lists:\n  office: {file: office.txt} # ours\nopen: [ssh]\n"
	path := h.writes(file)
	list := filepath.Join(filepath.Dir(path), "office.txt")
	office := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	office("203.0.113.0/24\n")
	h.runs("open: [ssh]\n")
	h.File = path
	h.types(0, "open", "80,443/tcp", "on", "eth0,", "wg*", "from", "@office", "except", "203.0.113.9", "to", "192.0.2.1", "limit", "6/min", "burst", "9", "gre from 198.51.100.9")
	const web, gre = "80,443/tcp on eth0,wg* from @office except 203.0.113.9 to 192.0.2.1 limit 6/minute burst 9", "gre from 198.51.100.9"
	h.opens("ssh", web, gre)
	h.holds(path, strings.Replace(file, "[ssh]", `[ssh, "`+web+`", gre from 198.51.100.9]`, 1))
	h.types(2, "open", "25/tcp", "from", "@ofice")
	h.complains(`unknown list "@ofice": did you mean "@office"?`)
	h.types(2, "open", "http", "https", "limit", "6/minute")
	h.complains(`"http" "https limit 6/minute", or "http limit 6/minute" "https limit 6/minute"`)
	h.types(1, "close", "443/tcp")
	h.complains(`close "` + web[:60])
	office("203.0.113.0/25\n") // what is in force, and what the file says, can be closed all the same
	h.types(0, "close", "80,443/tcp limit 6/minute burst 9 from @office except 203.0.113.9 to 192.0.2.1 on eth0,wg*")
	h.opens("ssh", gre)
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	h.types(1, "open", "25/tcp", "from", "@office")
	h.complains("office.txt: no such file or directory")
	h.opens("ssh", gre)
}

func TestCompletingARule(t *testing.T) {
	h := newHost(t)
	path := h.writes("lists: {office: [203.0.113.0/24], bad: []}\nopen: []\n")
	for words, want := range map[string][]string{
		"":                                      {"gre", "all"},
		"ssh ":                                  {"on", "from", "limit", "gre"},
		"ssh from @office ":                     {"on", "except", "!from"},
		"ssh from ":                             {"@office", "@bad", "!gre"},
		"ssh from @office,":                     {"@office,@bad", "!@office,@office"},
		"ssh limit ":                            {"6/minute"},
		"ssh limit 6/minute ":                   {"burst", "on", "!limit"},
		"ssh limit 6/minute burst ":             {"10"},
		"ssh from 192.0.2.1 to 192.0.2.2 http ": {"from", "to"},
	} {
		args := strings.Split("__complete --config "+path+" open "+words, " ")
		var stdout bytes.Buffer
		e := h.env()
		e.stdout, e.stderr = &stdout, io.Discard
		if code := run(e, args); code != 0 {
			t.Errorf("%q exits with %d", words, code)
		}
		got := "\n" + stdout.String()
		for _, word := range want {
			unwanted := strings.HasPrefix(word, "!")
			if strings.Contains(got, "\n"+strings.TrimPrefix(word, "!")+"\n") == unwanted {
				t.Errorf("%q completes to%s", words, got)
			}
		}
	}
}
