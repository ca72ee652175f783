// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestForwardRulesOfNoEffectAreNamed(t *testing.T) {
	h := newHost(t)
	path := h.writes("interfaces: [eth0]\nforward: {policy: accept, open: [all on eth1]}\nopen: [ssh]\n")
	const sentence = `"forward: accept" lets everything through, so that its rules ("all on eth1") have no effect`
	for _, args := range [][]string{{"check", path}, {"up", "--config", path}, {"apply"}, {"diff"}} {
		h.types(0, args...)
		h.complains(sentence)
	}
	h.types(0, "open", "--forward", "http")
	h.complains(`forward rule "http" has no effect: "forward: accept" lets everything through`)
}

func TestBuiltInPolicyOfForwardingHost(t *testing.T) {
	for _, forwards := range []bool{true, false} {
		h := newHost(t)
		h.Forwarding = forwards
		h.types(0, "up")
		want := policy.ForwardDrop
		if forwards {
			want = policy.ForwardEstablished
		}
		if got := h.Running.Forward; got != want {
			t.Errorf("a host that forwards (%t) gets forward: %s, want %s", forwards, got, want)
		}
		h.types(0, "status")
		h.says("built in, as there is no " + firewall.DefaultConfig)
	}
}

func TestUnfilteredInterfacesAreNamed(t *testing.T) {
	h := newHost(t)
	h.Others = []host.Interface{{Name: "eth1"}, {Name: "$(reboot)"}}
	path := h.writes("interfaces: [eth0]\nopen: [ssh]\n")
	const sentence = "eth1, $(reboot) are not filtered"
	for _, command := range []string{"up", "status"} {
		h.types(0, command, "--config", path, "--pin-path", "/sys/fs/bpf/x")
		h.complains(sentence)
		h.complains("portcullis --pin-path /sys/fs/bpf/x up eth1 '$(reboot)' --config " + path)
	}
	h.types(0, "status")
	h.complains("portcullis up eth1 '$(reboot)'\" filters")
	h.types(anyCode, "doctor", "-o", "json")
	if !strings.Contains(h.stdout, "eth1 is not filtered") {
		t.Errorf("doctor does not name eth1: %s", h.stdout)
	}
	// One that the file names is named once.
	if err := os.WriteFile(path, []byte("interfaces: [eth0, eth1]\nopen: [ssh]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.types(0, "status")
	h.complains("the policy file names eth1, which is not filtered")
	h.complains("warning: $(reboot) is not filtered")
}

// A rule that restricts nothing looks as if it did, wherever it comes from.
func TestRulesThatRestrictNothingAreNamed(t *testing.T) {
	h := newHost(t)
	path := h.writes("interfaces: [eth0]\nopen: [smtp, smtp from 10.0.0.0/8, ssh]\n")
	for _, args := range [][]string{{"check", path}, {"up", "--config", path}, {"apply"}, {"diff"}} {
		h.types(0, args...)
		h.complains(`warning: "smtp from 10.0.0.0/8" restricts nothing: "smtp" lets all of it in already`)
	}
	h.types(0, "check", h.writes("open: [25/udp, 25/tcp from 10.0.0.0/8]\n"))
	if h.stderr != "" && strings.Contains(h.stderr, "restricts") {
		t.Errorf("warns of %q", h.stderr)
	}
}
