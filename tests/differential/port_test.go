// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// changingNumber is the port that opens and closes in the middle of a sequence, for TCP and UDP.
const changingNumber = 8080

// changeRules is what an administrator of netfilter does.
func (s *side) changeRules(open bool) error {
	verb := "-D"
	if open {
		verb = "-I"
	}
	text := "*filter\n"
	for _, protocol := range []string{"tcp", "udp"} {
		text += fmt.Sprintf("%s INPUT -i eth0 -p %s --dport %d -j ACCEPT\n", verb, protocol, changingNumber)
	}
	for _, command := range []string{"iptables-restore", "ip6tables-restore"} {
		restore := s.lab.Server.Command(command, "--noflush")
		restore.Stdin = strings.NewReader(text + "COMMIT\n")
		if out, err := restore.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	return nil
}

// changeFilter is what one of Portcullis does.
func changeFilter(filter *loader.Filter, open bool) error {
	var rules []policy.Rule
	for _, protocol := range []string{"tcp", "udp"} {
		rule, err := policy.ParseRule(fmt.Sprintf("%d/%s", changingNumber, protocol))
		if err != nil {
			return err
		}
		rules = append(rules, rule)
	}
	var err error
	if open {
		_, err = filter.OpenRules(rules, true)
	} else {
		_, err = filter.CloseRules(rules, false)
	}
	return err
}
