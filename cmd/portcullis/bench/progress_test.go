// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		name        string
		steps, done int
		columns     int
		want        string
	}{
		{"nothing is done", 4, 0, 80, "  0% [                        ]  closed port: nft"},
		{"half of it", 4, 2, 80, " 50% [============            ] 20s left  closed port: nft"},
		{"a narrow terminal", 4, 2, 20, " 50% [============ "},
		{"no room at all", 4, 2, 0, ""},
		{"more steps than foreseen", 4, 9, 80, " 90% [=====================   ] 2s left  closed port: nft"},
	} {
		p := progress{steps: c.steps, done: c.done}
		if got := p.line("closed port: nft", c.columns, 20*time.Second); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestProgressLeavesNothing(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out, 2)
	p.step("one")
	p.step("two")
	p.end()
	lines := strings.Split(out.String(), eraseLine)
	if len(lines) != 4 || !strings.HasSuffix(lines[1], "one") || !strings.HasSuffix(lines[2], "two") || lines[3] != "" {
		t.Errorf("on the terminal: %q", lines)
	}
	newProgress(nil, 2).step("nobody looks")
}
