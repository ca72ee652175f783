// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/loader"
)

// A command that a message names can be typed as it stands, whatever an interface is called.
func TestNamedCommandsAreSafe(t *testing.T) {
	const name, quoted = "$(reboot)", "'$(reboot)'"
	_, request := monitor.Request{Interfaces: []string{"eth7"}, Snaplen: 1, Rate: 1}.Options([]string{name}, nil)
	for _, text := range []string{
		differs(loader.LedgerCheck{Interface: name, Difference: 1}).Error(),
		loader.Interface{Name: name, Mode: loader.ModeTC}.BypassText(),
		loader.Interface{Name: name, Mode: loader.ModeGeneric}.BypassText(),
		request.Error(),
	} {
		_, command, _ := strings.Cut(text, ": ")
		if !strings.Contains(command, quoted) || strings.Contains(strings.ReplaceAll(command, quoted, ""), name) {
			t.Errorf("a shell would run something else: %s", text)
		}
	}
}
