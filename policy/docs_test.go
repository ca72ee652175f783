// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// What the page on forwarding shows of a file may stand in one.
func TestForwardingIsShownRight(t *testing.T) {
	text, err := os.ReadFile("../docs/forwarding.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```yaml\n")[1:]
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		if p, err := policy.Parse("forwarding.md", []byte(block)); err != nil || len(p.UselessTexts()) > 0 {
			t.Errorf("%v\n%s", err, block)
		}
	}
	if len(blocks) < 4 {
		t.Errorf("it shows %d files", len(blocks))
	}
}
