// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

// A word that a rule cannot have gets the same advice on a command line as in a file.
func TestOutIsNoService(t *testing.T) {
	_, inFile := ParseRule("443/tcp out eth0")
	_, err := ParseRules([]string{"443/tcp", "out", "eth0"})
	if err == nil || inFile == nil || !strings.Contains(err.Error(), `unexpected "out" after "443/tcp"`) {
		t.Errorf("the command line says %v, and the file %v", err, inFile)
	}
}
