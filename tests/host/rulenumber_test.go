// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A rule keeps the number under which it counts, also when most of the others go and its number is a high one.
func TestRulesThatStayKeepTheirNumbers(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 3000)
	var texts []string
	for port := 1001; port <= 3000; port++ {
		texts = append(texts, fmt.Sprintf("%d/tcp", port))
	}
	up(t, l, loader.ModeAuto, policyOf(t, texts...))
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 3000), "the last rule")
	before := status(t, l).Rules[1999]
	if before.Packets == 0 {
		t.Fatalf("%+v has counted nothing", before)
	}
	up(t, l, loader.ModeAuto, policyOf(t, "3000/tcp"))
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 3000), "the only rule")
	if after := status(t, l).Rules; len(after) != 1 || after[0].Packets <= before.Packets {
		t.Errorf("rules are %+v, and the one had counted %d", after, before.Packets)
	}
}
