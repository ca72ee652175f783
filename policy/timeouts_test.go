// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The manual takes its table from Timeouts, and docs/timeouts.md has the same.
func TestTimeoutsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/timeouts.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	for _, timeout := range Timeouts {
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", timeout.Name, timeout.DefaultText(), timeout.Meaning)
	}
	if !strings.HasSuffix(string(text), "|---|---|---|\n"+rows.String()) {
		t.Errorf("the table of docs/timeouts.md is not\n%s", rows.String())
	}
	if want := fmt.Sprintf("`flows: max` is %d to %d. The default is %d", MinMaxFlows, MaxMaxFlows, DefaultMaxFlows); !strings.Contains(string(text), want) {
		t.Errorf("docs/timeouts.md has no %q", want)
	}
}
