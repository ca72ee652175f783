// SPDX-License-Identifier: Apache-2.0

package cmdline

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
)

func TestComplete(t *testing.T) {
	both := Flags{PinPath: "/sys/fs/bpf/a b", Config: "it's.yaml"}
	for _, c := range []struct {
		flags      Flags
		text, want string
	}{
		{Flags{PinPath: loader.DefaultPinPath}, `run "portcullis up"`, `run "portcullis up"`},
		{Flags{PinPath: "/p"}, `"portcullis confirm" or "portcullis revert" first`, `"portcullis --pin-path /p confirm" or "portcullis --pin-path /p revert" first`},
		{Flags{Config: "c"}, `eth0: "portcullis up eth0 --mode tc" filters it`, `eth0: "portcullis up eth0 --mode tc --config c" filters it`},
		{both, `"portcullis up"`, `"portcullis --pin-path '/sys/fs/bpf/a b' up --config 'it'\''s.yaml'"`},
		{both, "another name: \"portcullis up 'a\"b' $'\\'\"\\x1b'\" ends", "another name: \"portcullis --pin-path '/sys/fs/bpf/a b' up 'a\"b' $'\\'\"\\x1b' --config 'it'\\''s.yaml'\" ends"},
		{both, `see "portcullis up --help"`, `see "portcullis up --help"`},
		{both, `"portcullis is" and portcullis up`, `"portcullis --pin-path '/sys/fs/bpf/a b' is --config 'it'\''s.yaml'" and portcullis up`},
		{both, "\"portcullis up\n\"", "\"portcullis up\n\""},
		{both, `"portcullis `, `"portcullis `},
		{both, `"portcullis ` + "'", `"portcullis ` + "'"},
	} {
		got := c.flags.Complete(c.text)
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
		if again := c.flags.Complete(got); again != got {
			t.Errorf("%s: a second time it is %s", got, again)
		}
	}
	line := `"` + both.Line("up", `a"b`) + `" filters`
	if got := both.Complete(line); got != line {
		t.Errorf("%s becomes %s", line, got)
	}
}
