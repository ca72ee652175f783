// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"bytes"
	"os"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Golden compares the text of a policy with a file, which it writes anew if it is to, and fails if the text is that of another
// policy.
func Golden(t *testing.T, path string, got []byte, p *policy.Policy, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: it gives\n%s\nwant\n%s", path, got, want)
	}
	read, err := policy.Parse(path, got)
	if err != nil {
		t.Fatal(err)
	}
	if !read.Equal(p) {
		t.Errorf("%s: it is read again as another policy: %v", path, policy.Diff(p, read))
	}
}
