// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// 8080 was opened to everybody when both were meant to be restricted.
func TestOpenAsksWhatFromIsMeantFor(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	for _, verb := range []string{"open", "close"} {
		h.types(2, verb, "8080/tcp", "9090/tcp", "from", "10.0.0.0/8")
		h.complains(`"8080/tcp" "9090/tcp from 10.0.0.0/8", or "8080/tcp from 10.0.0.0/8" "9090/tcp from 10.0.0.0/8"`)
	}
	h.opens("ssh")
	h.types(0, "open", "8080/tcp", "9090/tcp from 10.0.0.0/8")
	h.opens("ssh", "8080/tcp", "9090/tcp from 10.0.0.0/8")
}

func TestOpenTellsThatARuleRestrictsNothing(t *testing.T) {
	h := newHost(t)
	h.runs("open: [smtp]\n")
	h.types(0, "open", "smtp", "from", "10.0.0.0/8")
	h.complains(`warning: "smtp from 10.0.0.0/8" restricts nothing: "smtp" lets all of it in already, until closed`)
	h.types(0, "open", "http", "from", "10.0.0.0/8")
	if h.stderr != "" {
		t.Errorf("warns of %q", h.stderr)
	}
}
