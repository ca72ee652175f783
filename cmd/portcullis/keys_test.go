// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// The help of check, which is a manual page too, explains every key of the file.
func TestCheckHelpExplainsEveryKey(t *testing.T) {
	h := newHost(t)
	h.types(0, "check", "--help")
	words := strings.Join(strings.Fields(h.stdout), " ")
	var look func(keys []policy.Key)
	look = func(keys []policy.Key) {
		for _, k := range keys {
			if !strings.Contains(words, " "+k.Name+" ") || !strings.Contains(words, k.Meaning) {
				t.Errorf("it does not explain %s", k.Name)
			}
			look(k.Keys)
		}
	}
	look(policy.Keys())
}
