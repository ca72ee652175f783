// SPDX-License-Identifier: Apache-2.0

package quote

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"sshd":                       "sshd",
		"Zürich 東京 '\"$":             "Zürich 東京 '\"$",
		"\x1b]0;owned\x07":           `\x1b]0;owned\x07`,
		"\x1b[2J\x1b[H":              `\x1b[2J\x1b[H`,
		"a\nportcullis: all is well": `a\nportcullis: all is well`,
		"a\rb\tc\x00d\x7f":           `a\rb\tc\x00d\u007f`,
		"\u009b31m":                  `\u009b31m`, // CSI in one character
		"\x9b31m\xff":                `\x9b31m\xff`,
		"abc\u202egpj.exe":           `abc\u202egpj.exe`,
		"\u2066a\u2069\u200b\ufeff":  `\u2066a\u2069\u200b\ufeff`,
		"a\u00a0b\u2028c":            `a\u00a0b\u2028c`,
		"\U000e0041":                 `\udb40\udc41`,
		`\x1b`:                       `\x1b`,
	} {
		if got := Text(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
	}
}

func TestName(t *testing.T) {
	if got, want := Name(strings.Repeat("ü", longestName)), strings.Repeat("ü", longestName); got != want {
		t.Errorf("got %s", got)
	}
	if got, want := Name(strings.Repeat("\x1b", 10<<20)), strings.Repeat(`\x1b`, longestName)+"…"; got != want {
		t.Errorf("a very long name takes %d bytes, want %d", len(got), len(want))
	}
	if got := Names([]string{"a", "b\n"}); got != `a, b\n` {
		t.Error(got)
	}
}

// A shell reads the word back, and runs nothing of it.
func TestShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	for _, word := range []string{"eth0", "", "a b", "$(reboot)", "`id`", "a;id", "it's", `\`, "'\\''", "\x1b[2J", "a\nb", "\u202e", "\xff'", "*", "~", "#x", "-n", "ü"} {
		quoted := Shell(word)
		if strings.ContainsFunc(quoted, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q becomes %q", word, quoted)
		}
		out, err := exec.Command(bash, "-c", "printf %s\\\\n "+quoted).Output()
		if err != nil || string(out) != word+"\n" {
			t.Errorf("%q becomes %s, which is %q, %v", word, quoted, out, err)
		}
	}
	if got := ShellWords([]string{"eth0", "a b"}); got != "eth0 'a b'" {
		t.Error(got)
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"a", "\x1b[2J", "\xff\xfe", "\u202e", "\U000e0041", "a\nb\tc"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown := Text(text)
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", text, shown)
		}
		if again := Text(shown); again != shown {
			t.Errorf("%q becomes %q when it is quoted again", shown, again)
		}
		var b bytes.Buffer
		e := json.NewEncoder(NewWriter(&b))
		e.SetEscapeHTML(false)
		if err := e.Encode(text); err != nil {
			t.Fatal(err)
		}
		line := strings.TrimSuffix(b.String(), "\n")
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is written as %q", text, line)
		}
		var back string
		if err := json.Unmarshal([]byte(line), &back); err != nil || back != strings.ToValidUTF8(text, "\ufffd") && utf8.ValidString(text) {
			t.Errorf("%q comes back as %q, %v", text, back, err)
		}
	})
}
