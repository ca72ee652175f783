// SPDX-License-Identifier: Apache-2.0

package leaktest

import (
	"os"
	"slices"
	"testing"
)

func TestMore(t *testing.T) {
	before := descriptors()
	if left := more(before, descriptors()); len(left) > 0 {
		t.Errorf("nothing was opened, and left is %q", left)
	}
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	if left := more(before, descriptors()); !slices.Equal(left, []string{"1 × /dev/zero"}) {
		t.Errorf("left is %q", left)
	}
	f.Close()
	if left := more(before, descriptors()); len(left) > 0 {
		t.Errorf("all is closed, and left is %q", left)
	}
}
